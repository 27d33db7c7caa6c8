"""The suite on each saboteur, and which of its tests must notice.

Run by test_suite_catches.py; a file of its own so that pytest collects it only there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from storebridge.driver import Backend
from storebridge.testing.driver_suite import BackendHarness, DriverConformance
from tests.conformance.plain import PlainBackend, PlainDriver, PlainTransaction
from tests.conformance.saboteurs import (
    AfterForgotten,
    AfterIncludesItself,
    AfterWidens,
    BlindToItsOwnWrites,
    BodyAsView,
    BodyStripped,
    ClaimsEveryError,
    ClashAfterHalf,
    ClashBeforeExists,
    ClashNamesTheTable,
    ClashNever,
    CommitForgets,
    CommitInTwo,
    CountAfter,
    CountLimited,
    CreatesTablesAnew,
    EverythingIsWrong,
    IdsCutShort,
    InsertOverwrites,
    LayoutForgotten,
    LowerExcluded,
    NoneClashes,
    NoneIsInTheIndex,
    NoSnapshot,
    NothingIsWrong,
    OneRowTooMany,
    OrderAccents,
    OrderIntegersAsText,
    OrderUtf16,
    PositionAtTheEnd,
    PrefixOfText,
    RarelyWrong,
    ReadersWrite,
    ReadsAfterClosing,
    RebuildDropsTheUnreadable,
    RebuildsNothing,
    RemoveNeedsValues,
    RemoveTakesTheNeighbour,
    ReplaceKeepsIndexes,
    ReplaceKeepsTheBody,
    ReverseForgotten,
    RollbackKeeps,
    RollbackKeepsLongOnes,
    SharesEverything,
    TallyInFloats,
    TallyIsLastMinute,
    TallyReturnsDeltas,
    TallySurvivesRollback,
    TextThatLooksLikeNumbers,
    TotalsIgnoreCase,
    TotalsShowTheLayout,
    UpperIncluded,
    WritesShowAtOnce,
)

CAUGHT_BY: dict[type[PlainTransaction] | type[PlainDriver], tuple[str, ...]] = {
    OrderAccents: ("test_text_is_in_order_of_code_points",),
    OrderUtf16: ("test_text_is_in_order_of_code_points",),
    OrderIntegersAsText: ("test_integers_are_in_order_of_value",),
    OneRowTooMany: ("test_pages_of_every_size", "test_after_every_position"),
    PositionAtTheEnd: ("test_pages_of_every_size",),
    AfterIncludesItself: ("test_after_every_position",),
    AfterForgotten: ("test_pages_of_every_size",),
    AfterWidens: ("test_after_outside_of_the_bounds",),
    UpperIncluded: ("test_bounds", "test_integers_are_in_order_of_value"),
    LowerExcluded: ("test_bounds",),
    PrefixOfText: ("test_prefix_is_of_whole_fields", "test_prefix_without_entries"),
    ReverseForgotten: ("test_after_every_position", "test_bounds"),
    CountLimited: ("test_count_ignores_after_and_limit",),
    CountAfter: ("test_count_ignores_after_and_limit",),
    NoneIsInTheIndex: ("test_none_is_absent_from_an_index",),
    TallySurvivesRollback: (
        "test_rolled_back_numbers_are_given_again",
        "test_rollback_leaves_nothing[tally]",
    ),
    TotalsIgnoreCase: ("test_totals_of_a_prefix",),
    TotalsShowTheLayout: ("test_new_database_has_no_totals", "test_numbers_are_kept"),
    TallyIsLastMinute: ("test_totals_inside_a_transaction",),
    TallyReturnsDeltas: ("test_tally_adds",),
    TallyInFloats: ("test_numbers_up_to_64_bits",),
    InsertOverwrites: ("test_insert_existing_key",),
    ClashBeforeExists: ("test_insert_existing_key",),
    ClashAfterHalf: ("test_unique_index_refuses",),
    ClashNamesTheTable: ("test_unique_index_refuses",),
    ClashNever: ("test_unique_index_refuses", "test_unique_fields_are_free_again"),
    NoneClashes: ("test_unique_index_refuses",),
    ReplaceKeepsIndexes: ("test_replace_every_subset_of_values",),
    ReplaceKeepsTheBody: ("test_replace_only_the_body",),
    RemoveNeedsValues: ("test_remove_takes_every_index_entry[unreadable]",),
    RemoveTakesTheNeighbour: ("test_remove_takes_every_index_entry[values]",),
    BodyStripped: ("test_bodies_come_back_identical",),
    BodyAsView: ("test_bodies_come_back_identical",),
    TextThatLooksLikeNumbers: ("test_integers_and_texts_stay_what_they_are",),
    IdsCutShort: ("test_longest_ids", "test_longest_fields"),
    RollbackKeeps: ("test_rollback_leaves_nothing[insert]",),
    RollbackKeepsLongOnes: ("test_rollback_of_everything_at_once",),
    CommitForgets: ("test_commit_is_seen_by_the_next",),
    CommitInTwo: ("test_threads_see_whole_transactions",),
    WritesShowAtOnce: ("test_reads_its_own_writes",),
    BlindToItsOwnWrites: ("test_reads_its_own_writes_in_order", "test_reads_its_own_writes"),
    NoSnapshot: ("test_read_transaction_is_a_snapshot", "test_many_read_transactions"),
    ReadersWrite: ("test_read_transaction_cannot_write",),
    NothingIsWrong: ("test_faults_name_the_entry[state]",),
    EverythingIsWrong: (
        "test_faults_name_the_entry[none]",
        "test_unreadable_bodies_are_passed_over",
    ),
    RebuildsNothing: ("test_rebuild_mends[size]", "test_rebuild_swaps_unique_values"),
    RebuildDropsTheUnreadable: ("test_unreadable_bodies_are_passed_over",),
    RarelyWrong: ("test_random_operations",),
    LayoutForgotten: ("test_layout_is_kept",),
    CreatesTablesAnew: ("test_create_tables_again", "test_tables_are_added"),
    ClaimsEveryError: ("test_foreign_errors_are_not_the_engines",),
    ReadsAfterClosing: ("test_closed",),
    SharesEverything: ("test_two_databases_at_once",),
}


def _driver(saboteur: type[PlainTransaction] | type[PlainDriver]) -> type[PlainDriver]:
    if issubclass(saboteur, PlainDriver):
        return saboteur
    return type(saboteur.__name__, (PlainDriver,), {"transaction": saboteur})


class SabotagedHarness(BackendHarness):
    """Of a backend that is at hand, not looked up by name."""

    saboteur: type[PlainDriver] = PlainDriver

    @property
    def backend(self) -> Backend:
        return PlainBackend(self.saboteur)


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as many random operations."""
    monkeypatch.setenv("STOREBRIDGE_ATTACK", "10")


def _suite(driver: type[PlainDriver]) -> type[DriverConformance]:
    @pytest.fixture
    def harness(self: object, tmp_path: Path) -> BackendHarness:
        made = SabotagedHarness("plain", tmp_path)
        made.saboteur = driver
        return made

    return type(f"Test{driver.__name__}", (DriverConformance,), {"harness": harness})


class TestPlain(_suite(PlainDriver)):  # type: ignore[misc]  # made at run time
    """Without a saboteur: every test named above must pass."""


globals().update({f"Test{each.__name__}": _suite(_driver(each)) for each in CAUGHT_BY})
# In four hundred examples every seed should find it; in forty it is for some to find.
globals()["TestRarelyWrong"] = pytest.mark.usefixtures("attacked")(globals()["TestRarelyWrong"])
