"""The filter's own JSON and SHA-256, in Envoy's LuaJIT, compared with Python's."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.integration.gateway.choosing import chosen
from tests.integration.gateway.gateways import BODY_LIMIT_BYTES, LUA, bootstrap, envoy_of
from tests.servers.ports import free_port

SCRIPT = f"""
package.path = "{LUA}/?.lua;" .. package.path
local scan, json, sha256 = require("json_scan"), require("json"), require("sha256")
package.loaded.sha256 = nil
package.preload.sha256_of_openssl = function() return false end -- as on a machine without it
package.loaded.sha256_of_openssl = nil
local sha256_in_lua = require("sha256")
local function in_pieces(of, text)
  local hash, step = of.new(), #text % 131 + 1
  for at = 1, #text, step do hash:update(text:sub(at, at + step - 1)) end
  return hash:hex()
end
local wanted = {{ model = true, stream = true, user = true }}
local function encoded(value)
  if type(value) == "string" then return json.string(value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {{}}
  for name, each in pairs(value) do
    parts[#parts + 1] = json.string(tostring(name)) .. ":" .. encoded(each)
  end
  return "{{" .. table.concat(parts, ",") .. "}}"
end
local operations = {{
  ["/sha256"] = sha256.hex,
  ["/pieces"] = function(text) return in_pieces(sha256, text) end,
  ["/sha256-in-lua"] = sha256_in_lua.hex,
  ["/pieces-in-lua"] = function(text) return in_pieces(sha256_in_lua, text) end,
  ["/point-in-lua"] = function(text) return string.format("%.17g", sha256_in_lua.point(text)) end,
  ["/point"] = function(text) return string.format("%.17g", sha256.point(text)) end,
  ["/string"] = json.string,
  ["/valid"] = function(text) return tostring(scan.valid(text)) end,
  ["/decode"] = function(text) return encoded(json.decode(text)) end,
  ["/members"] = function(text)
    local firsts, lasts = scan.members(text, 1, #text, wanted, json.name)
    if not firsts then return lasts end
    local parts = {{}}
    for name, at in pairs(firsts) do parts[#parts + 1] = '"' .. name .. '":' .. text:sub(at, lasts[name]) end
    return "{{" .. table.concat(parts, ",") .. "}}"
  end,
}}
function envoy_on_request(handle)
  local body = handle:body()
  local text = body and body:getBytes(0, body:length()) or ""
  handle:respond({{ [":status"] = "200" }}, operations[handle:headers():get(":path")](text))
end
"""

Lua = Callable[[str, bytes], bytes]


@pytest.fixture(scope="module")
def lua(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lua]:
    """Runs an operation of the script on a text."""
    home, port = tmp_path_factory.mktemp("lua"), free_port()
    configuration = bootstrap(port, SCRIPT, {"none": free_port()}, home)
    with envoy_of(home, configuration, port), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def run(operation: str, text: bytes) -> bytes:
            answer = client.post(operation, content=text)
            assert answer.status_code == 200, answer.text
            return answer.content

        yield run


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["model", "stream", "user", "mode", "models", "", "été"]) | st.text()
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
WRITERS = st.sampled_from([{}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}])


def written(value: Any, writer: dict[str, Any]) -> bytes:
    return json.dumps(value, **writer).encode("utf-8", "surrogatepass")


def reads(text: bytes) -> bool:
    """Whether Python takes the text for JSON, strictly."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text.decode(), parse_constant=refuse)
    except ValueError:
        return False
    return True


@given(value=OBJECTS, writer=WRITERS)
def test_members_are_found_where_python_finds_them(
    lua: Lua, value: dict[str, Any], writer: dict[str, Any]
) -> None:
    found = json.loads(lua("/members", written(value, writer)))
    assert found == {name: each for name, each in value.items() if name in ("model", "stream", "user")}


@settings(max_examples=200)
@given(value=VALUES, writer=WRITERS, data=st.data())
def test_what_is_valid_is_valid_in_python_and_the_reverse(
    lua: Lua, value: Any, writer: dict[str, Any], data: st.DataObject
) -> None:
    text = bytearray(written(value, writer))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(
            st.sampled_from(
                [b"", b'"', b"\\", b",", b"{", b"]", b"0", b"-", b"e", b"\xc3", b"\xed\xa0\x80", b"\x00"]
            )
        )
        text[at : at + data.draw(st.integers(0, 2))] = piece
    assert lua("/valid", bytes(text)) == str(reads(bytes(text))).lower().encode()


TEXTS = [
    b"",
    b" ",
    b"nul",
    b"01",
    b"-",
    b"1.",
    b".5",
    b"1e",
    b"+1",
    b'"\t"',
    b'"\\x"',
    b'"\\u12G4"',
    b'"\\',
    b"[1,]",
]
TEXTS += [
    b"{,}",
    b'{"a"}',
    b'{"a":}',
    b"[,1]",
    b"]",
    b"NaN",
    b"Infinity",
    b"\xef\xbb\xbf1",
    b'"\xc0\x80"',
    b"tru",
    b"1 1",
]
TEXTS += [
    b'"\xf4\x90\x80\x80"',
    b'"\xe0\x80\x80"',
    b'"\xf8\x88\x80\x80\x80"',
    b"[" * 90 + b"]" * 90,
    b'"\x7f"',
    b"-0.0E-0",
]


@pytest.mark.parametrize("text", TEXTS)
def test_odd_texts_are_judged_as_python_does(lua: Lua, text: bytes) -> None:
    assert lua("/valid", text) == str(reads(text)).lower().encode()


def test_a_nest_beyond_the_bound_is_refused(lua: Lua) -> None:
    assert lua("/valid", b"[" * 100 + b"]" * 100) == b"true"
    assert lua("/valid", b"[" * 101 + b"]" * 101) == b"false"
    assert lua("/valid", b'{"a":' * 5000 + b"1" + b"}" * 5000) == b"false"


def _named(value: Any) -> Any:
    """As the script writes a value: elements of a list by their numbers, and without null."""
    if isinstance(value, list):
        value = {str(at): each for at, each in enumerate((one for one in value if one is not None), start=1)}
    if isinstance(value, dict):
        return {name: _named(each) for name, each in value.items() if each is not None}
    return value


LINES = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@given(value=LINES, writer=WRITERS)
def test_a_journal_s_line_is_decoded_as_python_decodes_it(
    lua: Lua, value: dict[str, Any], writer: dict[str, Any]
) -> None:
    assert json.loads(lua("/decode", written(value, writer))) == _named(value)


@given(text=st.text() | st.text(alphabet='"\\\n\r\t\x00\x1f\x7fa'))
def test_a_text_becomes_a_string_that_python_reads_back(lua: Lua, text: str) -> None:
    assert json.loads(lua("/string", text.encode())) == text


@given(text=st.binary())
def test_bytes_that_are_no_text_become_one_all_the_same(lua: Lua, text: bytes) -> None:
    assert isinstance(json.loads(lua("/string", text)), str)


SHA256 = ("/sha256", "/pieces", "/sha256-in-lua", "/pieces-in-lua")


@given(text=st.binary(max_size=300))
@example(b"a" * 55)
@example(b"a" * 56)
@example(b"a" * 63)
@example(b"a" * 64)
@example(b"a" * 119)
@example(b"a" * 128)
def test_sha256_is_hashlib_s_whole_and_in_pieces(lua: Lua, text: bytes) -> None:
    for operation in SHA256:
        assert lua(operation, text).decode() == hashlib.sha256(text).hexdigest()


def test_sha256_of_a_long_text(lua: Lua) -> None:
    text = bytes(range(256)) * (BODY_LIMIT_BYTES // 512)
    for operation in SHA256:
        assert lua(operation, text).decode() == hashlib.sha256(text).hexdigest()


@given(key=st.text(min_size=1), weight=st.integers(0, 100))
def test_the_point_of_a_key_is_that_of_its_sha256(lua: Lua, key: str, weight: int) -> None:
    weights = {"v1": 100 - weight, "v2": weight}
    for operation in ("/point", "/point-in-lua"):
        point = float(lua(operation, key.encode()))
        assert chosen(weights, key) == ("v2" if point * 100 < weight else "v1")


def test_the_filter_s_modules_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in Path(LUA).glob("*.lua")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length >= 300} == {}
