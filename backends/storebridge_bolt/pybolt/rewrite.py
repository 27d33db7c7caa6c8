"""Merging a transaction's sorted changes into a B+tree, bottom up, onto new pages.

Each page that a change touches is read once, its successor put on a new page, and the old one
freed. What Go takes for granted when it writes on is kept here at every step:

* a branch's key is exactly its child's first key,
* a branch has two children or more,
* no leaf is empty except a root,
* a page splits only above four elements, with two elements a side at least.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Protocol

from .errors import CorruptError
from .page import (
    BUCKET,
    ELEMENT_SIZE,
    HEADER_SIZE,
    LEAF,
    BucketValue,
    branch_size,
    encode_branch,
    encode_inline,
    encode_leaf,
    leaf_size,
    patch_branch,
)
from .tree import InlineTree, PagedTree, Pages

_MAX_DEPTH = 64
_MIN_PER_SIDE = 2
_USUAL_FILL = 0.5
_BULK = 8  # changes to one leaf from which merging whole lists beats single insertions

Changes = Mapping[bytes, bytes | None]


class Space(Protocol):
    """Where pages come from and go to during a commit."""

    pages: Pages

    def allocate(self, count: int) -> int:
        """The first of `count` pages in a row."""

    def free(self, page: int, overflow: int) -> None:
        """Give a page and its overflow back, once no state needs it."""

    def write(self, page: int, content: bytes) -> None:
        """Set a new page's bytes."""


class Leaf:
    """A leaf that is not on a page yet.

    `kept` says that its page was kept decoded: then so is the one that it gets.
    """

    __slots__ = ("kept", "keys", "shrunk", "values")

    def __init__(self, keys: list[bytes], values: list[bytes], shrunk: bool = False) -> None:
        self.keys = keys
        self.values = values
        self.shrunk = shrunk
        self.kept = False

    def size(self) -> int:
        return leaf_size(self.keys, self.values)

    def sizes(self) -> list[int]:
        """The bytes that each element takes."""
        keys, values = map(len, self.keys), map(len, self.values)
        return [ELEMENT_SIZE + key + value for key, value in zip(keys, values, strict=True)]

    def part(self, start: int, stop: int) -> Leaf:
        return Leaf(self.keys[start:stop], self.values[start:stop])

    def apply(self, changes: Changes, keys: list[bytes]) -> None:
        """Take in the changes of these sorted keys."""
        if len(keys) >= _BULK:
            self._apply_many(changes, keys)
            return
        for key in keys:
            value = changes[key]
            index = bisect_left(self.keys, key)
            found = index < len(self.keys) and self.keys[index] == key
            if value is None:
                if found:
                    del self.keys[index], self.values[index]
                    self.shrunk = True
            elif found:
                self.values[index] = value
            else:
                self.keys.insert(index, key)
                self.values.insert(index, value)

    def _apply_many(self, changes: Changes, keys: list[bytes]) -> None:
        merged: dict[bytes, bytes | None] = dict(zip(self.keys, self.values, strict=True))
        merged.update(zip(keys, map(changes.__getitem__, keys), strict=True))
        # Two sorted runs end to end, or nearly so: what a merge sort is best at.
        items = [(key, merged[key]) for key in sorted(merged)]
        before = len(self.keys)
        self.keys = [key for key, value in items if value is not None]
        self.values = [value for _, value in items if value is not None]
        self.shrunk = self.shrunk or len(self.keys) < before or len(items) > len(self.keys)


class Branch:
    """A branch that is not on a page yet.

    A child is a page, or a node to be. `nodes` counts the latter: where there are none the branch
    can be written without looking at each child. `origin` is the page that it was and the children
    that differ, where nothing else does: then the page is copied instead of encoded. `kept` is as a
    leaf's. The lists may be shared with the cache; they are replaced, never changed.
    """

    __slots__ = ("children", "kept", "keys", "nodes", "origin", "shrunk")

    def __init__(
        self, keys: list[bytes], children: list[int | Leaf | Branch], shrunk: bool = False
    ) -> None:
        self.keys = keys
        self.children = children
        self.shrunk = shrunk
        self.nodes = 0
        self.kept = False
        self.origin: tuple[int, int, list[int]] | None = None  # page, overflow, children

    def size(self) -> int:
        return branch_size(self.keys)

    def sizes(self) -> list[int]:
        """The bytes that each element takes."""
        return [ELEMENT_SIZE + len(key) for key in self.keys]

    def part(self, start: int, stop: int) -> Branch:
        part = Branch(self.keys[start:stop], self.children[start:stop])
        part.nodes = self.nodes
        part.kept = self.kept
        return part


Node = Leaf | Branch


class TreeWriter:
    """Rewrites one tree. `fill` says how full the pages of a split become, 0.1 to 1.0."""

    def __init__(self, space: Space, fill: float) -> None:
        self.space = space
        self.pages = space.pages
        self.page_size = space.pages.page_size
        # Of keys that only grow nobody comes back to the branches that are made now.
        self.grows = fill > _USUAL_FILL
        self.threshold = int(self.page_size * min(max(fill, 0.1), 1.0))

    def rewrite(self, root: int, changes: Changes, keys: list[bytes]) -> int | Node:
        """The tree's new root: a page where only that is left of it, else a node to `put`."""
        return self.grow(self._update(root, changes, keys, 0))

    def grow(self, nodes: list[Node]) -> int | Node:
        """One root above these nodes; one with a single child gives way to it."""
        if not nodes:
            return Leaf([], [])
        while len(nodes) > 1:
            nodes = self.split(self._parent(nodes))
        root: int | Node = nodes[0]
        while isinstance(root, Branch) and len(root.children) == 1:
            root = root.children[0]
        return root

    def _parent(self, nodes: list[Node]) -> Branch:
        keys = [node.keys[0] for node in nodes]
        return Branch(keys, [self.put(node) for node in nodes])

    def put(self, node: Node) -> int:
        """Give a node, and the nodes below it, a page."""
        if isinstance(node, Branch):
            return self._put_branch(node)
        page = self.space.allocate(-(-node.size() // self.page_size))
        content = encode_leaf(page, node.keys, node.values, self.page_size)
        self.space.write(page, content)
        if node.kept:
            leaf = (node.keys, node.values, BucketValue in map(type, node.values))
            self.pages.cache.keep_leaf(page, leaf, len(content))
        return page

    def _put_branch(self, node: Branch) -> int:
        children = self._put_children(node)
        if node.origin is None:
            page = self.space.allocate(-(-node.size() // self.page_size))
            content = encode_branch(page, node.keys, children, self.page_size)
        else:
            origin, overflow, changed = node.origin
            page = self.space.allocate(overflow + 1)
            replaced = [(index, children[index]) for index in changed]
            content = patch_branch(self.pages.content(origin, overflow), page, replaced)
        cache = self.pages.cache
        if node.kept or not cache.has_many_branches():
            cache.keep_branch(page, node.keys, children)
        self.space.write(page, content)
        return page

    def _put_children(self, node: Branch) -> list[int]:
        """Give a branch's nodes their pages; the children, which are all pages then."""
        if node.nodes:
            children = node.children = list(node.children)
            # Where nothing else differs only those that do need to be looked at.
            places = range(len(children)) if node.origin is None else node.origin[2]
            for place in places:
                child = children[place]
                if child.__class__ is not int:
                    children[place] = self.put(child)  # type: ignore[arg-type]
            node.nodes = 0
        return node.children  # type: ignore[return-value]

    def split(self, node: Node) -> list[Node]:
        """A node in parts that fit a page, as far as splitting can make them; none of nothing."""
        if not node.keys:
            return []
        if isinstance(node, Branch) and node.origin is not None:
            return [node]
        count = len(node.keys)
        if count <= 2 * _MIN_PER_SIDE or node.size() <= self.page_size:
            return [node]
        ends = list(accumulate(node.sizes(), initial=HEADER_SIZE))
        parts: list[Node] = []
        start = 0
        while count - start > 2 * _MIN_PER_SIDE:
            used = ends[start] - HEADER_SIZE
            if ends[count] - used <= self.page_size:
                break
            stop = bisect_right(ends, used + self.threshold) - 1
            stop = min(max(stop, start + _MIN_PER_SIDE), count - _MIN_PER_SIDE)
            parts.append(node.part(start, stop))
            start = stop
        parts.append(node.part(start, count))
        return parts

    def _load(self, child: int | Node) -> Node:
        """A child as a node; its page is freed."""
        if not isinstance(child, int):
            return child
        flags, count, overflow = self.pages.header(child)
        if flags == LEAF:
            keys, values, _ = self.pages.leaf(child, count, overflow)
            leaf = Leaf(keys[:], values[:])
            leaf.kept = child in self.pages.cache.leaves
            self.space.free(child, overflow)
            return leaf
        kept = child in self.pages.cache.branches
        keys, children = self.pages.branch(child)
        branch = Branch(keys, list(children[1:]))
        branch.kept = kept and not self.grows
        branch.origin = (child, overflow, [])
        self.space.free(child, overflow)
        return branch

    def _update(self, page: int, changes: Changes, keys: list[bytes], depth: int) -> list[Node]:
        """What takes the place of a page: nothing, one node or several."""
        if depth > _MAX_DEPTH:
            raise CorruptError(f"page {page} lies in a circle of pages")
        node = self._load(page)
        if isinstance(node, Leaf):
            node.apply(changes, keys)
        else:
            self._update_children(node, changes, keys, depth)
        return self.split(node)

    def _update_children(
        self, node: Branch, changes: Changes, keys: list[bytes], depth: int
    ) -> None:
        """Put the changes into the children; what each became takes its place."""
        parts: list[tuple[int, list[Node]]] = []
        start = 0
        while start < len(keys):
            index = max(bisect_right(node.keys, keys[start]) - 1, 0)
            stop = len(keys)
            if index + 1 < len(node.keys):
                stop = bisect_left(keys, node.keys[index + 1], start)
            child = node.children[index]
            assert isinstance(child, int)
            parts.append((index, self._update(child, changes, keys[start:stop], depth + 1)))
            start = stop
        if all(self._fits_in(node.keys[index], nodes) for index, nodes in parts):
            for index, nodes in parts:
                node.children[index] = nodes[0]
            node.nodes = len(parts)
            assert node.origin is not None
            node.origin[2].extend(index for index, _ in parts)
        else:
            self._replace_children(node, parts)
            self._settle(node)

    def _fits_in(self, key: bytes, nodes: list[Node]) -> bool:
        """Whether one child became one, of the same key, that can be left alone."""
        return len(nodes) == 1 and nodes[0].keys[0] == key and not self._is_small(nodes[0])

    @staticmethod
    def _replace_children(node: Branch, parts: list[tuple[int, list[Node]]]) -> None:
        old_keys, old_children = node.keys, node.children
        node.keys, node.children, node.origin = [], [], None
        done = 0
        for index, nodes in parts:
            node.keys += old_keys[done:index]
            node.children += old_children[done:index]
            node.keys += [part.keys[0] for part in nodes]
            node.children += nodes
            node.nodes += len(nodes)
            done = index + 1
        node.keys += old_keys[done:]
        node.children += old_children[done:]
        node.shrunk = len(node.keys) < len(old_keys)

    def _settle(self, node: Branch) -> None:
        """Merge children that became too small with a neighbour.

        Nobody gets a page yet: a branch that keeps a single child will be merged itself, or give
        way, and then the child may have neighbours to merge with, which must still be nodes.
        """
        if any(self._is_small(child) for child in node.children if child.__class__ is not int):
            self._merge_small(node)

    def _merge_small(self, node: Branch) -> None:
        index = 0
        while index < len(node.children) > 1:
            if not self._is_small(node.children[index]):
                index += 1
                continue
            left = max(index - 1, 0)
            merged = self._join(
                self._load(node.children[left]), self._load(node.children[left + 1])
            )
            parts = self.split(merged)
            node.keys[left : left + 2] = [part.keys[0] for part in parts]
            node.children[left : left + 2] = parts
            node.nodes = len(node.children)  # at most
            node.shrunk = True
            # One part may still be small; of two, neither gains from another round.
            index = left if len(parts) == 1 else left + len(parts)

    def _is_small(self, child: int | Node) -> bool:
        """Whether a changed child is to be merged: a branch must be, where it has one child."""
        if isinstance(child, int):
            return False
        if isinstance(child, Branch) and len(child.children) < _MIN_PER_SIDE:
            return True
        return child.shrunk and (len(child.keys) < 2 or child.size() <= self.page_size // 4)

    def _join(self, left: Node, right: Node) -> Node:
        if isinstance(left, Leaf) and isinstance(right, Leaf):
            return Leaf(left.keys + right.keys, left.values + right.values, shrunk=True)
        if isinstance(left, Branch) and isinstance(right, Branch):
            children = left.children + right.children
            joined = Branch(left.keys + right.keys, children, shrunk=True)
            joined.nodes = left.nodes + right.nodes
            self._settle(joined)
            return joined
        raise CorruptError("a branch page has leaves and branches as children")


def rewrite_bucket(
    space: Space,
    tree: PagedTree | InlineTree,
    sequence: int,
    changes: Changes,
    keys: list[bytes],
    fill: float,
) -> BucketValue:
    """A nested bucket's new value, its pages written: inline where it is small and flat."""
    writer = TreeWriter(space, fill)
    root: int | Node
    if isinstance(tree, PagedTree):
        root = writer.rewrite(tree.root, changes, keys) if keys else tree.root
    else:
        root = Leaf(tree.keys[:], tree.values[:])
        root.apply(changes, keys)
    if isinstance(root, Leaf):
        if _fits_inline(root, space.pages.page_size):
            return encode_inline(sequence, root.keys, root.values)
        root = writer.grow(writer.split(root))
    page = root if isinstance(root, int) else writer.put(root)
    return BucketValue(BUCKET.pack(page, sequence))


def _fits_inline(leaf: Leaf, page_size: int) -> bool:
    return leaf.size() <= page_size // 4 and BucketValue not in map(type, leaf.values)
