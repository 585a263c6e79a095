"""The book of endpoints: which version counts when, and what an endpoint is now."""

from itertools import pairwise

from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from server.catalog.endpoints import (
    MAX_DEPTH,
    EndpointBook,
    EndpointRow,
    EndpointVersion,
    FeatureNode,
    WordLimit,
)

CHAT, OTHER = ObjectId(), ObjectId()


def version(
    time_ms: int, credits_micros: int | None, endpoint_id: ObjectId = CHAT, *, ends: bool = False
) -> EndpointVersion:
    return EndpointVersion(ObjectId(), endpoint_id, "chat", time_ms, credits_micros, ends)


def credits_at(versions: list[EndpointVersion], *times: int) -> list[int | None]:
    book = EndpointBook({}, (), versions)
    return [book.credits_at("chat", time) for time in times]


class TestVersions:
    def test_nothing_before_the_first(self) -> None:
        assert credits_at([version(10, 5)], 9, 10, 99) == [None, 5, 5]
        assert EndpointBook({}, (), ()).credits_at("chat", 10) is None

    def test_one_set_ahead_outlives_a_change_before_it(self) -> None:
        assert credits_at([version(0, 1), version(20, 3), version(10, 2)], 0, 10, 20) == [1, 2, 3]

    def test_of_one_time_the_last_written_counts(self) -> None:
        assert credits_at([version(10, 1), version(10, 2)], 10) == [2]

    def test_a_deletion_ends_what_was_to_begin(self) -> None:
        versions = [version(0, 1), version(20, 3), version(10, None, ends=True)]
        assert credits_at(versions, 9, 10, 20) == [1, None, None]
        assert credits_at([*versions, version(30, 4)], 29, 30) == [None, 4]

    def test_no_price_is_not_a_deletion(self) -> None:
        assert credits_at([version(0, 1), version(20, 3), version(10, None)], 10, 20) == [None, 3]

    def test_a_value_that_is_used_again_is_the_new_one_s(self) -> None:
        versions = [version(0, 1), version(10, None, ends=True), version(5, 7, OTHER)]
        assert credits_at(versions, 4, 5, 10) == [1, 7, 7]
        book = EndpointBook({}, (), versions)
        assert book.id_at("chat", 4) == CHAT
        assert book.id_at("chat", 5) == OTHER
        assert book.version_at("chat", 99) == versions[2].id
        assert book.version_at("chat", -1) is book.id_at("chat", -1) is None

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9) | st.none()), max_size=20))
    def test_it_agrees_with_replaying_every_row(self, rows: list[tuple[int, int | None]]) -> None:
        begun: dict[int, int | None] = {}
        versions = []
        for time_ms, credits_micros in rows:
            ends = credits_micros is None
            if ends:
                begun = {time: value for time, value in begun.items() if time < time_ms}
            begun[time_ms] = credits_micros
            versions.append(version(time_ms, credits_micros, ends=ends))
        for now in range(-1, 11):
            past = [time for time in begun if time <= now]
            expected = begun[max(past)] if past else None
            assert credits_at(versions, now) == [expected]


class TestTree:
    @given(
        st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=MAX_DEPTH),
        st.sets(st.integers(0, MAX_DEPTH - 1)),
        st.integers(0, MAX_DEPTH - 1),
    )
    def test_it_agrees_with_walking_up(
        self, drawn: list[tuple[int, bool]], packaged: set[int], place: int
    ) -> None:
        ids = [ObjectId() for _ in drawn]
        # A feature's parent is one that was drawn before it: no circles.
        above = [None if at == 0 else parent % at for at, (parent, _) in enumerate(drawn)]
        features = {
            ids[at]: FeatureNode(str(at), None if up is None else ids[up], is_active, None)
            for at, (up, (_, is_active)) in enumerate(zip(above, drawn, strict=True))
        }
        at: int | None = place % len(ids)
        row = EndpointRow(CHAT, "chat", ids[place % len(ids)], True, None, frozenset(), "", "")
        sold = frozenset(ids[one] for one in packaged if one < len(ids))
        endpoint = EndpointBook(features, [row], (), sold).find("chat")
        walked = []
        while at is not None:
            walked.append(at)
            at = above[at]
        assert endpoint is not None
        assert endpoint.feature == str(walked[0])
        assert endpoint.lineage == {ids[one] for one in walked}
        assert endpoint.is_packaged == any(one in packaged for one in walked)
        inactive = [str(one) for one in walked if not drawn[one][1]]
        assert endpoint.inactive_feature == (inactive[0] if inactive else "")


class TestPresent:
    TOP, MIDDLE = ObjectId(), ObjectId()

    def book(
        self,
        top: bool = True,
        middle: bool = True,
        feature_limit: WordLimit | None = None,
        own_limit: WordLimit | None = None,
        packaged: frozenset[ObjectId] = frozenset(),
    ) -> EndpointBook:
        features = {
            self.TOP: FeatureNode("top", None, top, None),
            self.MIDDLE: FeatureNode("middle", self.TOP, middle, feature_limit),
        }
        row = EndpointRow(
            CHAT, "chat", self.MIDDLE, True, own_limit, frozenset({1, 3}), "POST", "/v1/chat"
        )
        return EndpointBook(features, [row], (), packaged)

    def test_every_field(self) -> None:
        endpoint = self.book().find("chat")
        assert endpoint == (
            *(CHAT, "chat", True, "", 0, 0),
            *(frozenset({1, 3}), "POST", "/v1/chat", self.MIDDLE),
            *("middle", frozenset({self.MIDDLE, self.TOP}), False),
        )
        assert self.book().find("chit") is None

    def test_the_nearest_inactive_feature(self) -> None:
        names = [
            endpoint.inactive_feature
            for top, middle in ((True, True), (False, True), (True, False), (False, False))
            if (endpoint := self.book(top, middle).find("chat"))
        ]
        assert names == ["", "top", "middle", "middle"]

    def test_its_own_limit_before_its_feature_s(self) -> None:
        feature, own = WordLimit(10, 20), WordLimit(5, 0)
        limits = [
            (endpoint.max_words_free, endpoint.max_words_paid)
            for pair in ((None, None), (feature, None), (feature, own), (None, own))
            if (endpoint := self.book(feature_limit=pair[0], own_limit=pair[1]).find("chat"))
        ]
        assert limits == [(0, 0), (10, 20), (5, 0), (5, 0)]

    def test_a_limit_of_a_feature_above_is_not_its_own(self) -> None:
        features = {
            self.TOP: FeatureNode("top", None, True, WordLimit(10, 20)),
            self.MIDDLE: FeatureNode("middle", self.TOP, True, None),
        }
        row = EndpointRow(CHAT, "chat", self.MIDDLE, True, None, frozenset(), "", "")
        endpoint = EndpointBook(features, [row], ()).find("chat")
        assert endpoint is not None
        assert (endpoint.max_words_free, endpoint.max_words_paid) == (0, 0)

    def test_it_is_packaged_with_any_feature_above_it(self) -> None:
        below = ObjectId()
        packaged = [
            endpoint.is_packaged
            for ids in ((), (self.MIDDLE,), (self.TOP,), (below,), (below, self.TOP))
            if (endpoint := self.book(packaged=frozenset(ids)).find("chat"))
        ]
        assert packaged == [False, True, True, False, True]

    def test_endpoints_of_a_feature_share_its_lineage(self) -> None:
        rows = [
            EndpointRow(ObjectId(), value, self.TOP, True, None, frozenset(), "", "")
            for value in ("one", "two")
        ]
        features = {self.TOP: FeatureNode("top", None, True, None)}
        book = EndpointBook(features, rows, ())
        one, two = book.find("one"), book.find("two")
        assert one is not None
        assert two is not None
        assert one.lineage is two.lineage

    def test_a_feature_that_is_not_known_is_its_own_lineage(self) -> None:
        row = EndpointRow(CHAT, "chat", self.TOP, True, None, frozenset(), "", "")
        endpoint = EndpointBook({}, [row], (), frozenset({self.TOP})).find("chat")
        assert endpoint is not None
        assert (endpoint.lineage, endpoint.is_packaged) == (frozenset({self.TOP}), True)

    def test_a_tree_too_deep_ends(self) -> None:
        ids = [ObjectId() for _ in range(2 * MAX_DEPTH)]
        features = {
            one: FeatureNode(str(place), above, True, None)
            for place, (one, above) in enumerate(pairwise(ids))
        }
        row = EndpointRow(CHAT, "chat", ids[0], True, None, frozenset(), "", "")
        endpoint = EndpointBook(features, [row], ()).find("chat")
        assert endpoint is not None
        assert ids[MAX_DEPTH - 1] in endpoint.lineage
        assert len(endpoint.lineage) <= MAX_DEPTH + 1

    def test_a_circle_in_the_rows_ends(self) -> None:
        features = {self.TOP: FeatureNode("top", self.TOP, True, None)}
        row = EndpointRow(CHAT, "chat", self.TOP, True, None, frozenset(), "", "")
        endpoint = EndpointBook(features, [row], ()).find("chat")
        assert endpoint is not None
        assert endpoint.inactive_feature == ""
