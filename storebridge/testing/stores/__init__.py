"""The store level of the conformance suite, by subject: see `storebridge.testing.store_suite`."""
