"""Options in the query of a location on a server."""

from __future__ import annotations

OWN_OPTIONS = ("schema", "prefix", "pool_size")
INCOMING = "_storebridge_incoming"
"""How the schema's name ends in which a database is made that is to take the place of another."""
LIBPQ_OPTIONS = (
    *("host", "hostaddr", "port", "user", "password", "passfile", "service", "connect_timeout"),
    *("application_name", "options", "target_session_attrs", "load_balance_hosts"),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslcrldir"),
    *("sslnegotiation", "sslsni", "sslcertmode", "ssl_min_protocol_version", "channel_binding"),
    *("require_auth", "requirepeer", "gssencmode", "krbsrvname", "gsslib", "gssdelegation"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    "tcp_user_timeout",
)
"""As libpq calls them, and passed on to it."""
