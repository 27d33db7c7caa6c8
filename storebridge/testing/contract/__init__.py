"""The contract level of the suite, by subject. `storebridge.testing.driver_suite` joins it."""
