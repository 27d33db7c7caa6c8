"""The conformance suite, and fixtures for the tests of those who use storebridge.

**You write a backend.** Subclass `DriverConformance` (the contract) and `StoreConformance` (what
every store promises on top of it), supply one fixture, and get all of it::

    import pytest
    from storebridge.testing.driver_suite import DriverConformance
    from storebridge.testing.harness import BackendHarness
    from storebridge.testing.store_suite import StoreConformance

    class TestMyEngine(DriverConformance, StoreConformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return BackendHarness("storebridge_myengine:backend", tmp_path)

A test is skipped only where the driver's traits say that its engine cannot do that, with the
trait as the reason. `STOREBRIDGE_ATTACK=10` makes the random and the killing tests ten times as
long; `STOREBRIDGE_SEED=…` chooses the random operations (a failure prints its seed), and
`STOREBRIDGE_SHRINK=1` looks for the shortest way to that failure, which may take minutes.

**You use storebridge.** The pytest plugin comes with the package: ask for the fixture
`storebridge_location`, `storebridge_database`, `job_store` or `execution_store`, and choose the
backend with `--storebridge-backend`.

Nothing is imported here: pytest and hypothesis come with the extra `testing`.
"""
