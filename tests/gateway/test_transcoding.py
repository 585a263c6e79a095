"""Paths, queries and bodies into messages, and messages into JSON: through the whole gateway."""

from typing import Any

import httpx2
import pytest

from tests.gateway.raw import raw_get

Client = httpx2.AsyncClient
JSON = {"content-type": "application/json"}


async def sent(echoed: Client, document: Any) -> Any:
    """What comes back of an Everything that was put as `document`."""
    answer = await echoed.post("/api/everything", json=document)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def got(echoed: Client, query: str) -> Any:
    answer = await echoed.get(f"/api/everything/x?{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["everything"]


def field_of(answer: httpx2.Response) -> str:
    """The one field that a 400 names."""
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["reason"] == "FIELD_INVALID"
    (violation,) = problem["violations"]
    assert violation["field"] == problem["metadata"]["field"]
    assert problem["detail"] == f"{violation['field']}: {violation['description']}"
    return str(violation["field"])


class TestBodies:
    @pytest.mark.parametrize(
        ("given", "back"),
        [
            ({"big_number": "9223372036854775807"}, {"big_number": "9223372036854775807"}),
            ({"big_number": -9223372036854775808}, {"big_number": "-9223372036854775808"}),
            ({"bigNumber": "7"}, {"big_number": "7"}),
            ({"small": 3.0}, {"small": 3}),
            ({"small": "-3"}, {"small": -3}),
            ({"ubig": "18446744073709551615"}, {"ubig": "18446744073709551615"}),
            ({"fixedBig": 5}, {"fixed_big": "5"}),
            ({"twice": "NaN"}, {"twice": "NaN"}),
            ({"twice": "-Infinity"}, {"twice": "-Infinity"}),
            ({"twice": 1e300}, {"twice": 1e300}),
            ({"single": 1.5}, {"single": 1.5}),
            ({"is_on": True}, {"is_on": True}),
            ({"raw": "+/8="}, {"raw": "+/8="}),
            ({"raw": "-_8"}, {"raw": "+/8="}),
            ({"colour": "COLOUR_BLUE"}, {"colour": "COLOUR_BLUE"}),
            ({"colour": 1}, {"colour": "COLOUR_RED"}),
            ({"colour": 99}, {"colour": 99}),
            ({"tags": ["a", "b"]}, {"tags": ["a", "b"]}),
            ({"colours": ["COLOUR_RED", 7]}, {"colours": ["COLOUR_RED", "COLOUR_BLUE"]}),
            ({"amounts": {"a": "1", "b": 2}}, {"amounts": {"a": "1", "b": "2"}}),
            ({"coloursByNumber": {"-4": 1}}, {"colours_by_number": {"-4": "COLOUR_RED"}}),
            ({"maybe": 0}, {"maybe": 0}),
            ({"one": ""}, {"one": ""}),
            ({"other": 0}, {"other": "0"}),
            ({"at_time": "2026-01-31T00:00:00Z"}, {"at_time": "2026-01-31T00:00:00Z"}),
            ({"at_time": "2026-01-31T02:00:00.5+02:00"}, {"at_time": "2026-01-31T00:00:00.500Z"}),
            (
                {"at_time": "0001-01-01T00:00:00.000000001Z"},
                {"at_time": "0001-01-01T00:00:00.000000001Z"},
            ),
            (
                {"times": ["9999-12-31T23:59:59.999999Z"]},
                {"times": ["9999-12-31T23:59:59.999999Z"]},
            ),
            ({"took": "-1.5s"}, {"took": "-1.500s"}),
            ({"mask": "aB,c_d.eF"}, {"mask": "a_b,c_d.e_f"}),
            ({"boxed": "0"}, {"boxed": "0"}),
            ({"boxedText": "x"}, {"boxed_text": "x"}),
            (
                {"document": {"a": [1, None, {"b": "c"}]}},
                {"document": {"a": [1, None, {"b": "c"}]}},
            ),
            ({"anything": None}, {"anything": None}),
            ({"text": "ü𝄞\u0000"}, {"text": "ü𝄞\u0000"}),
            (
                {"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}},
                {"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}},
            ),
            (
                {"times_by_name": {"a": "2026-01-31T00:00:00Z"}},
                {"times_by_name": {"a": "2026-01-31T00:00:00Z"}},
            ),
        ],
    )
    async def test_values(
        self, echoed: Client, given: dict[str, Any], back: dict[str, Any]
    ) -> None:
        answered = await sent(echoed, given)

        assert {name: answered[name] for name in back} == back

    async def test_nested_messages(self, echoed: Client) -> None:
        document = {"child": {"children": [{"text": "a"}, {}]}, "byFlag": {"true": {"small": 1}}}

        answered = await sent(echoed, document)

        assert [each["text"] for each in answered["child"]["children"]] == ["a", ""]
        assert answered["by_flag"]["true"]["small"] == 1

    async def test_defaults_are_written_and_what_is_unset_is_not(self, echoed: Client) -> None:
        answered = await sent(echoed, {})

        assert answered == {
            "text": "",
            "small": 0,
            "big_number": "0",
            "usmall": 0,
            "ubig": "0",
            "signed_big": "0",
            "fixed_big": "0",
            "single": 0.0,
            "twice": 0.0,
            "is_on": False,
            "raw": "",
            "colour": "COLOUR_UNSPECIFIED",
            "tags": [],
            "colours": [],
            "children": [],
            "amounts": {},
            "by_flag": {},
            "times": [],
            "times_by_name": {},
            "colours_by_number": {},
        }

    async def test_null_is_absent(self, echoed: Client) -> None:
        answered = await sent(echoed, {"text": None, "tags": None, "child": None, "maybe": None})

        assert answered["text"] == ""
        assert "child" not in answered
        assert "maybe" not in answered

    @pytest.mark.parametrize(
        ("document", "field"),
        [
            ({"nope": 1}, "everything.nope"),
            ({"child": {"nope": 1}}, "everything.child.nope"),
            ({"children": [{}, {"small": "x"}]}, "everything.children[1].small"),
            ({"amounts": {"k": True}}, "everything.amounts[k]"),
            ({"byFlag": {"yes": {}}}, "everything.by_flag[yes]"),
            ({"small": 2**31}, "everything.small"),
            ({"small": 1.5}, "everything.small"),
            ({"small": "1.0"}, "everything.small"),
            ({"small": " 1"}, "everything.small"),
            ({"small": True}, "everything.small"),
            ({"bigNumber": 2**63}, "everything.big_number"),
            ({"ubig": -1}, "everything.ubig"),
            ({"single": 1e39}, "everything.single"),
            ({"twice": "one"}, "everything.twice"),
            ({"is_on": "yes"}, "everything.is_on"),
            ({"is_on": 1}, "everything.is_on"),
            ({"text": 1}, "everything.text"),
            ({"raw": "a"}, "everything.raw"),
            ({"raw": "a*=="}, "everything.raw"),
            ({"colour": "GREEN"}, "everything.colour"),
            ({"tags": "a"}, "everything.tags"),
            ({"tags": [None]}, "everything.tags[0]"),
            ({"amounts": []}, "everything.amounts"),
            ({"child": []}, "everything.child"),
            ({"at_time": "2026-01-31"}, "everything.at_time"),
            ({"at_time": 5}, "everything.at_time"),
            ({"took": "1"}, "everything.took"),
            ({"boxed": "x"}, "everything.boxed"),
            ({"any": {"@type": "nope"}}, "everything.any"),
            ({"one": "a", "other": 1}, "everything.other"),
            ({"big_number": 1, "bigNumber": 2}, "everything.big_number"),
            ([], "everything"),
            ("x", "everything"),
        ],
    )
    async def test_bad_values_name_their_field(
        self, echoed: Client, document: Any, field: str
    ) -> None:
        assert field_of(await echoed.post("/api/everything", json=document)) == field

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"\xff\xfe{\x00}\x00",
            b'{"text": "\xff"}',
            b"\xef\xbb\xbf{}",
            b"NaN",
            b'{"twice": NaN}',
            b"[" * 100_000,
            b'{"child":' * 70 + b"{}" + b"}" * 70,
            b'{"small": ' + b"1" * 5_000 + b"}",
        ],
    )
    async def test_what_is_no_json(self, echoed: Client, body: bytes) -> None:
        answer = await echoed.post("/api/everything", content=body, headers=JSON)

        assert answer.status_code == 400
        assert answer.json()["reason"] == "MALFORMED_MESSAGE"

    async def test_a_key_that_stands_twice(self, echoed: Client) -> None:
        body = b'{"text": "a", "text": "b"}'

        assert field_of(await echoed.post("/api/everything", content=body, headers=JSON)) == "text"

    async def test_half_a_character(self, echoed: Client) -> None:
        body = rb'{"text": "\ud800"}'
        answer = await echoed.post("/api/everything", content=body, headers=JSON)

        assert field_of(answer) == "everything.text"

    @pytest.mark.parametrize(
        ("content_type", "status"),
        [
            ("application/json", 200),
            ("application/json; charset=UTF-8", 200),
            ("Application/Merge-Patch+JSON", 200),
            ("application/json; charset=latin-1", 415),
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
            ("", 415),
        ],
    )
    async def test_media_types(self, echoed: Client, content_type: str, status: int) -> None:
        headers = {"content-type": content_type} if content_type else {}
        answer = await echoed.post("/api/everything", content=b"{}", headers=headers)

        assert answer.status_code == status
        if status == 415:
            assert answer.json()["reason"] == "MEDIA_TYPE_UNSUPPORTED"
            assert answer.headers["accept"] == "application/json"

    async def test_compressed_bodies_are_refused(self, echoed: Client) -> None:
        headers = {**JSON, "content-encoding": "gzip"}
        answer = await echoed.post("/api/everything", content=b"{}", headers=headers)

        assert answer.status_code == 415

    async def test_an_empty_body_is_an_empty_message(self, echoed: Client) -> None:
        answer = await echoed.post("/api/everything/whole")

        assert answer.status_code == 200

    async def test_a_body_where_none_is_taken(self, echoed: Client) -> None:
        answer = await echoed.request("DELETE", "/api/things/bulk?ids=1", json={"ids": ["2"]})

        assert answer.status_code == 400
        assert answer.json()["reason"] == "MALFORMED_MESSAGE"

    async def test_other_fields_of_a_request_stand_in_the_query(self, echoed: Client) -> None:
        answer = await echoed.post("/api/everything/whole", json={"note": "n", "everything": {}})
        assert answer.json()["note"] == "n"

        with_query = await echoed.post("/api/everything?note=n", json={})
        assert with_query.status_code == 200
        doubled = await echoed.post("/api/everything?everything.text=n", json={})
        assert field_of(doubled) == "everything.text"
        whole = await echoed.post("/api/everything/whole?note=n", json={})
        assert whole.json()["reason"] == "MALFORMED_MESSAGE"


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "back"),
        [
            ("everything.small=-3", {"small": -3}),
            ("everything.bigNumber=9223372036854775807", {"big_number": "9223372036854775807"}),
            ("everything.tags=a&everything.tags=b%26c", {"tags": ["a", "b&c"]}),
            ("everything.tags=", {"tags": [""]}),
            ("everything.tags=a+b%2Bc", {"tags": ["a b+c"]}),
            ("everything.colour=COLOUR_RED", {"colour": "COLOUR_RED"}),
            (
                "everything.colours=7&everything.colours=COLOUR_RED",
                {"colours": ["COLOUR_BLUE", "COLOUR_RED"]},
            ),
            ("everything.isOn=true", {"is_on": True}),
            ("everything.raw=-_8", {"raw": "+/8="}),
            ("everything.twice=1e3", {"twice": 1000.0}),
            ("everything.at_time=2026-01-31T00:00:00Z", {"at_time": "2026-01-31T00:00:00Z"}),
            ("everything.took=2.5s", {"took": "2.500s"}),
            ("everything.mask=aB,c.d", {"mask": "a_b,c.d"}),
            ("everything.boxed=5", {"boxed": "5"}),
            ("everything.maybe=0", {"maybe": 0}),
            ("everything.times=2026-01-31T00:00:00Z", {"times": ["2026-01-31T00:00:00Z"]}),
        ],
    )
    async def test_values(self, echoed: Client, query: str, back: dict[str, Any]) -> None:
        answered = await got(echoed, query)

        assert {name: answered[name] for name in back} == back

    async def test_nested_fields(self, echoed: Client) -> None:
        answered = await got(echoed, "everything.child.child.text=deep")

        assert answered["child"]["child"]["text"] == "deep"

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("nope=1", "nope"),
            ("everything.nope=1", "everything.nope"),
            ("everything.small=x", "everything.small"),
            ("everything.small=", "everything.small"),
            ("everything.small=1&everything.small=1", "everything.small"),
            ("everything.big_number=1&everything.bigNumber=1", "everything.big_number"),
            ("everything.text=y", "everything.text"),
            ("everything=y", "everything"),
            ("everything.child=y", "everything.child"),
            ("everything.children.text=y", "everything.children.text"),
            ("everything.amounts.key=y", "everything.amounts.key"),
            ("everything.small.x=1", "everything.small.x"),
            ("everything.isOn=yes", "everything.is_on"),
            ("everything.colour=GREEN", "everything.colour"),
            ("everything.at_time=now", "everything.at_time"),
            ("everything.one=a&everything.other=1", "everything.other"),
            ("everything." + "child." * 8 + "text=x", "everything." + "child." * 8 + "text"),
            ("x" * 300 + "=1", "x" * 200),
        ],
    )
    async def test_bad_parameters_are_named(self, echoed: Client, query: str, field: str) -> None:
        assert field_of(await echoed.get(f"/api/everything/x?{query}")) == field

    @pytest.mark.parametrize(
        "query",
        ["small", "a=1&&b=2", "a=%zz", "a=%ff", "&".join(["a=1"] * 1_001), "a=%"],
    )
    async def test_what_is_no_query(self, echo_url: str, query: str) -> None:
        status, body = await raw_get(echo_url, f"/api/things?{query}")

        assert status == 400
        assert b"MALFORMED_MESSAGE" in body

    async def test_a_hundred_ids(self, echoed: Client) -> None:
        ids = [str(number) for number in range(100)]
        answer = await echoed.delete("/api/things/bulk", params={"ids": ids})

        assert answer.json() == {"ids": ids}


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("a", "a"),
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("%C3%BC", "ü"),
            ("a%2Fb", "a/b"),
            ("a%252Fb", "a%2Fb"),
            ("a%3Fb", "a?b"),
            ("a%00b", "a\0b"),
            ("...", "..."),
            ("a:b", "a:b"),
        ],
    )
    async def test_one_segment(self, echo_url: str, path: str, text: str) -> None:
        status, body = await raw_get(echo_url, f"/api/everything/{path}")

        assert status == 200
        assert httpx2.Response(200, content=body).json()["everything"]["text"] == text

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/api/named/shelves/1/books/2", "shelves/1/books/2"),
            ("/api/named/shelves/1%2F2/books/%20", "shelves/1%2F2/books/ "),
            ("/api/files/a/b/c", "a/b/c"),
            ("/api/files/a%2fb", "a%2fb"),
            ("/api/named/shelves/1:open", "shelves/1"),
            ("/api/named/shelves/1%3Aopen", "shelves/1"),
        ],
    )
    async def test_several_segments(self, echo_url: str, path: str, name: str) -> None:
        status, body = await raw_get(echo_url, path)

        assert status == 200
        assert httpx2.Response(200, content=body).json()["name"] == name

    @pytest.mark.parametrize(
        "path",
        [
            "/api/files/../things",
            "/api/files/%2e%2e/things",
            "/api/files/a/%2E/b",
            "/api/everything/..",
            "/api/everything/%2e%2e",
            "/api//things",
            "/api/things/",
            "//api/things",
            "/api/things/1/2",
            "/",
            "/api%2Fthings",
            "/API/things",
            "/api/named/shelves//books/1",
            "/api/files/a//b",
            "/api/files" + "/a" * 40,
        ],
    )
    async def test_nothing_there(self, echo_url: str, path: str) -> None:
        status, body = await raw_get(echo_url, path)

        assert status == 404
        assert b"ROUTE_NOT_FOUND" in body

    @pytest.mark.parametrize("path", ["/api/things/%", "/api/things/%zz", "/api/things/%ff"])
    async def test_what_is_no_path(self, echo_url: str, path: str) -> None:
        status, body = await raw_get(echo_url, path)

        assert status == 400
        assert b"MALFORMED_MESSAGE" in body

    async def test_the_path_and_the_body_must_agree(self, echoed: Client) -> None:
        same = await echoed.patch("/api/things/1", json={"id": "1", "name": "n"})
        assert same.status_code == 200
        assert same.json()["update_mask"] == "name"

        other = await echoed.patch("/api/things/1", json={"id": "2"})
        assert field_of(other) == "thing.id"


class TestUpdates:
    async def test_what_the_body_names_is_to_change(self, echoed: Client) -> None:
        body = {"name": "", "size": None, "etag": "3"}
        answer = await echoed.patch("/api/things/1", json=body)

        assert answer.json()["update_mask"] == "name,size"
        assert answer.json()["thing"]["etag"] == "3"

    async def test_a_mask_that_is_given_stays(self, echoed: Client) -> None:
        answer = await echoed.patch("/api/things/1?updateMask=size", json={"name": "n"})

        assert answer.json()["update_mask"] == "size"


class TestManyValues:
    async def test_of_one_parameter(self, echoed: Client) -> None:
        """What stands so often belongs into a body: a line of a request has an end."""
        tag = "everything.tags=a"
        assert len((await got(echoed, "&".join([tag] * 100)))["tags"]) == 100
        answer = await echoed.get("/api/everything/x?" + "&".join([tag] * 101))
        assert field_of(answer) == "everything.tags"
