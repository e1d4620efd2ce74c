-- JSON values to Lua values and texts to JSON strings. For journals and records; bodies are only scanned (json_scan.lua).
local bit = require("bit")
local ffi = require("ffi")
local json_scan = require("json_scan")

local json = {}

local function utf8_of(code)
  if code < 0x80 then return string.char(code) end
  local last = string.char(0x80 + code % 64)
  if code < 0x800 then return string.char(0xc0 + bit.rshift(code, 6)) .. last end
  local middle = string.char(0x80 + bit.rshift(code, 6) % 64)
  if code < 0x10000 then return string.char(0xe0 + bit.rshift(code, 12)) .. middle .. last end
  return string.char(0xf0 + bit.rshift(code, 18), 0x80 + bit.rshift(code, 12) % 64) .. middle .. last
end

local ESCAPED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- The text of a valid JSON string, given without its quotes. nil: a surrogate stands alone, there is no such text.
function json.text(inner)
  if not inner:find("\\", 1, true) then return inner end
  local parts, at = {}, 1
  while true do
    local found = inner:find("\\", at, true)
    if not found then
      parts[#parts + 1] = inner:sub(at)
      return table.concat(parts)
    end
    parts[#parts + 1] = inner:sub(at, found - 1)
    local kind = inner:sub(found + 1, found + 1)
    at = found + 2
    if kind ~= "u" then
      parts[#parts + 1] = ESCAPED[kind] or kind
    else
      local code = tonumber(inner:sub(at, at + 3), 16)
      at = at + 4
      if code >= 0xd800 and code < 0xe000 then
        local low = code < 0xdc00 and inner:sub(at, at + 1) == "\\u" and tonumber(inner:sub(at + 2, at + 5), 16)
        if not low or low < 0xdc00 or low >= 0xe000 then return nil end
        code, at = 0x10000 + (code - 0xd800) * 1024 + (low - 0xdc00), at + 6
      end
      parts[#parts + 1] = utf8_of(code)
    end
  end
end

-- As json.text, for names of members: one that is no text is no name that we look for.
function json.name(inner) return json.text(inner) or "" end

local WORDS = { ["true"] = true, ["false"] = false }
local value_of -- objects and arrays hold values

-- The names of an object are not known before; so every name is wanted.
local EVERY = setmetatable({}, { __index = function() return true end })

local function object_of(text, from, to)
  local firsts, lasts = json_scan.members(text, from, to, EVERY, json.name)
  if not firsts then error(lasts, 0) end
  local object = {}
  for name, first in pairs(firsts) do object[name] = value_of(text, first, lasts[name]) end
  return object
end

local function array_of(text, from, to)
  local spans, array = json_scan.elements(text, from, to), {}
  for at = 1, #spans, 2 do array[#array + 1] = value_of(text, spans[at], spans[at + 1]) end
  return array
end

function value_of(text, from, to)
  local first = text:sub(from, from)
  if first == "{" then return object_of(text, from, to) end
  if first == "[" then return array_of(text, from, to) end
  if first == '"' then return json.text(text:sub(from + 1, to - 1)) or error("a surrogate stands alone", 0) end
  local word = text:sub(from, to)
  if word == "null" then return nil end
  if WORDS[word] ~= nil then return WORDS[word] end
  return tonumber(word)
end

-- The value text[from..to], which is known to be valid. null is nil: a member or an element that is not there.
function json.value(text, from, to) return value_of(text, from, to) end

-- The object that a text is; nil and why it is none.
function json.decode(text)
  local decoded, object = pcall(object_of, text, 1, #text)
  if decoded then return object end
  return nil, object
end

local CODES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
for byte = 0, 31 do
  local character = string.char(byte)
  CODES[character] = CODES[character] or string.format("\\u%04x", byte)
end
CODES["\127"] = "\\u007f"

-- What a string holds as it is. A loop, because LuaJIT compiles no patterns, and nearly all texts are nothing but this.
local AS_IT_IS = ffi.new("bool[256]")
for byte = 32, 126 do AS_IT_IS[byte] = not CODES[string.char(byte)] end

local function is_plain(text)
  local bytes, at = ffi.cast("const uint8_t *", text), 0
  while AS_IT_IS[bytes[at]] do at = at + 1 end -- stops at the zero byte at the end
  return at == #text
end

local function as_latin(byte) return string.format("\\u%04x", byte:byte()) end

-- A text as a JSON string. Bytes that are no UTF-8 (a header may hold any) become the characters of their numbers.
function json.string(text)
  if is_plain(text) then return '"' .. text .. '"' end
  if text:find('[%c"\\]') then text = text:gsub('[%c"\\]', CODES) end
  if text:find("[\128-\255]") and not json_scan.utf8(text) then text = text:gsub("[\128-\255]", as_latin) end
  return '"' .. text .. '"'
end

-- A text or nil as JSON.
function json.string_or_null(text) return text and json.string(text) or "null" end

return json
