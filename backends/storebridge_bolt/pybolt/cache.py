"""Decoded pages, shared by all snapshots of a database.

While anybody can reach a page its bytes do not change, so a decoded page is right for every
snapshot that asks for it; a commit drops the pages that it takes for something new.

A leaf is kept when it is asked for a second time: under random access to more than fits, decoding
each leaf once to throw it away again would cost more than looking into its page. A branch is kept
at once, unless there are many and it is only passed through on the way from one leaf to the next:
who reads or fills a large file from end to end comes to each for a while, and then never again.
"""

from __future__ import annotations

Branch = tuple[list[bytes], list[int]]
"""A branch's keys, and its children with the first one twice: the index that a bisection of the
keys gives is then the index of the child."""

LeafData = tuple[list[bytes], list[bytes], bool]
"""A leaf's keys, its values, and whether some of these are buckets."""

_MOST_BRANCHES = 4096
_MANY_BRANCHES = 256
_MOST_PASSED = 16
_MOST_ASKED = 1 << 14


class PageCache:
    """Decoded pages by number. The lists in it are never changed."""

    __slots__ = (
        "_asked",
        "_last",
        "_limit",
        "_missed",
        "_passed",
        "_sizes",
        "_used",
        "branches",
        "leaves",
        "values",
    )

    def __init__(self, limit: int) -> None:
        self.branches: dict[int, Branch] = {}
        self.leaves: dict[int, LeafData] = {}
        self.values: dict[int, dict[bytes, bytes]] = {}  # of kept leaves, to find one by its hash
        self._limit = limit  # bytes of the pages that leaves were decoded from
        self._used = 0
        self._sizes: dict[int, int] = {}
        self._asked: set[int] = set()
        self._passed: dict[int, Branch] = {}
        self._missed = 0
        self._last = -1

    def keep_branch(self, page: int, keys: list[bytes], children: list[int]) -> Branch:
        """Remember a branch."""
        if len(self.branches) >= _MOST_BRANCHES:
            self.branches.clear()
        branch = self.branches[page] = (keys, [children[0], *children])
        return branch

    def pass_branch(self, page: int, keys: list[bytes], children: list[int]) -> Branch:
        """Remember a branch for as long as whoever goes through the leaves below it needs it, and
        as any other one if that is not the first time, or there are not many."""
        if page in self._asked or not self.has_many_branches():
            return self.keep_branch(page, keys, children)
        self._ask(page)
        if len(self._passed) >= _MOST_PASSED:
            self._passed.clear()
        branch = self._passed[page] = (keys, [children[0], *children])
        return branch

    def has_many_branches(self) -> bool:
        """Whether so many are kept that one which is not needed again should not be."""
        return len(self.branches) >= _MANY_BRANCHES

    def passed(self, page: int) -> Branch | None:
        """A branch that somebody is passing through."""
        return self._passed.get(page)

    def _ask(self, page: int) -> None:
        if len(self._asked) >= _MOST_ASKED:
            self._asked.clear()
        self._asked.add(page)

    def wants_passed(self, page: int) -> bool:
        """The same for who goes through many leaves, and asks again where it was last only because
        it goes on from there: that alone would keep a leaf of every call's, and in the end as many
        as there is room for."""
        goes_on = page == self._last
        self._last = -1 if goes_on else page
        return not goes_on and self.wants(page)

    def wants(self, page: int) -> bool:
        """Note that somebody asked for a leaf; whether it is worth keeping now."""
        if page not in self._asked:
            self._ask(page)
            return False
        if self._used < self._limit:
            return True
        # Full: what is kept stays useful for a while, and then makes room for what is asked now.
        self._missed += 1
        if self._missed > 16 * len(self.leaves):
            self.leaves.clear()
            self.values.clear()
            self._sizes.clear()
            self._used = self._missed = 0
        return False

    def keep_leaf(self, page: int, leaf: LeafData, size: int) -> None:
        """Remember a leaf whose page has this size."""
        self.leaves[page] = leaf
        self.values[page] = dict(zip(leaf[0], leaf[1], strict=True))
        self._used += size - self._sizes.get(page, 0)
        self._sizes[page] = size

    def forget(self, page: int) -> None:
        """The page will hold something else."""
        self.branches.pop(page, None)
        self._passed.pop(page, None)
        if self.leaves.pop(page, None) is not None:
            self.values.pop(page, None)
            self._used -= self._sizes.pop(page, 0)
            self._asked.discard(page)
