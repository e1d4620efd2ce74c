-- JSON values to Lua values and texts to JSON strings. For journals and records; bodies are only scanned (json_scan.lua).
local bit = require("bit")
local ffi = require("ffi")
local json_scan = require("json_scan")

local json = {}

local ROOM_BYTES = 4096
local room = ffi.new("uint8_t[?]", ROOM_BYTES) -- for what is short, which most is

local function room_for(bytes) return bytes <= ROOM_BYTES and room or ffi.new("uint8_t[?]", bytes) end

local BACKSLASH, LETTER_U = 92, 117
-- What a byte after a backslash means; the value of a hexadecimal digit.
local MEANT, VALUE = ffi.new("uint8_t[256]"), ffi.new("uint8_t[256]")
for byte = 0, 255 do MEANT[byte] = byte end
for letter, meant in pairs({ b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }) do MEANT[letter:byte()] = meant:byte() end
for at, digit in ipairs({ ("0123456789abcdef"):byte(1, 16) }) do VALUE[digit] = at - 1 end
for at, digit in ipairs({ ("ABCDEF"):byte(1, 6) }) do VALUE[digit] = at + 9 end

local function code_at(p, i)
  return VALUE[p[i]] * 4096 + VALUE[p[i + 1]] * 256 + VALUE[p[i + 2]] * 16 + VALUE[p[i + 3]]
end

-- Writes a character as UTF-8; the place after it.
local function put_character(out, to, code)
  if code < 0x80 then
    out[to] = code
    return to + 1
  elseif code < 0x800 then
    out[to], out[to + 1] = 0xc0 + bit.rshift(code, 6), 0x80 + bit.band(code, 63)
    return to + 2
  elseif code < 0x10000 then
    out[to], out[to + 1] = 0xe0 + bit.rshift(code, 12), 0x80 + bit.band(bit.rshift(code, 6), 63)
    out[to + 2] = 0x80 + bit.band(code, 63)
    return to + 3
  end
  out[to], out[to + 1] = 0xf0 + bit.rshift(code, 18), 0x80 + bit.band(bit.rshift(code, 12), 63)
  out[to + 2], out[to + 3] = 0x80 + bit.band(bit.rshift(code, 6), 63), 0x80 + bit.band(code, 63)
  return to + 4
end

-- The text of a valid JSON string, given without its quotes. nil: a surrogate stands alone, there is no such text.
-- A loop over bytes, because LuaJIT compiles no patterns: of eight megabytes of escapes everybody would wait for a second.
function json.text(inner)
  if not inner:find("\\", 1, true) then return inner end
  local p, out, i, to, last = ffi.cast("const uint8_t *", inner), room_for(#inner), 0, 0, #inner
  while i < last do
    local byte = p[i]
    if byte ~= BACKSLASH then
      out[to], i, to = byte, i + 1, to + 1
    elseif p[i + 1] ~= LETTER_U then
      out[to], i, to = MEANT[p[i + 1]], i + 2, to + 1
    else
      local code = code_at(p, i + 2)
      i = i + 6
      if code >= 0xd800 and code < 0xe000 then
        if code >= 0xdc00 or p[i] ~= BACKSLASH or p[i + 1] ~= LETTER_U then return nil end
        local low = code_at(p, i + 2)
        if low < 0xdc00 or low >= 0xe000 then return nil end
        code, i = 0x10000 + (code - 0xd800) * 1024 + (low - 0xdc00), i + 6
      end
      to = put_character(out, to, code)
    end
  end
  return ffi.string(out, to)
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

-- How many bytes a byte takes in a JSON string, and the letter of those that take two.
local LENGTH, LETTER = ffi.new("uint8_t[256]"), ffi.new("uint8_t[256]")
for byte = 0, 255 do LENGTH[byte] = (byte < 32 or byte == 127) and 6 or 1 end
for text, letter in pairs({ ['"'] = '"', ["\\"] = "\\", ["\n"] = "n", ["\r"] = "r", ["\t"] = "t" }) do
  LENGTH[text:byte()], LETTER[text:byte()] = 2, letter:byte()
end
local QUOTE, ZERO, DIGITS = 34, 48, ffi.new("uint8_t[16]")
for at = 1, 16 do DIGITS[at - 1] = ("0123456789abcdef"):byte(at) end

-- What a string holds as it is. Nearly all texts are nothing but this.
local AS_IT_IS = ffi.new("bool[256]")
for byte = 32, 126 do AS_IT_IS[byte] = LENGTH[byte] == 1 end

local function is_plain(text)
  local bytes, at = ffi.cast("const uint8_t *", text), 0
  while AS_IT_IS[bytes[at]] do at = at + 1 end -- stops at the zero byte at the end
  return at == #text
end

-- Whether the text has only bytes of ASCII, or is UTF-8.
local function is_text(text, p)
  for at = 0, #text - 1 do
    if p[at] >= 0x80 then return json_scan.utf8(text) end
  end
  return true
end

-- A text as a JSON string. Bytes that are no UTF-8 (a header may hold any) become the characters of their numbers.
function json.string(text)
  if is_plain(text) then return '"' .. text .. '"' end
  local p, count, size = ffi.cast("const uint8_t *", text), #text, 2
  local highest = is_text(text, p) and 255 or 127 -- of the bytes that stand for themselves
  for at = 0, count - 1 do size = size + (p[at] > highest and 6 or LENGTH[p[at]]) end
  local out, to = room_for(size), 1
  out[0] = QUOTE
  for at = 0, count - 1 do
    local byte = p[at]
    local length = byte > highest and 6 or LENGTH[byte]
    if length == 1 then
      out[to] = byte
    else
      out[to], out[to + 1] = BACKSLASH, LETTER[byte]
      if length == 6 then
        out[to + 1], out[to + 2], out[to + 3] = LETTER_U, ZERO, ZERO
        out[to + 4], out[to + 5] = DIGITS[bit.rshift(byte, 4)], DIGITS[bit.band(byte, 15)]
      end
    end
    to = to + length
  end
  out[to] = QUOTE
  return ffi.string(out, size)
end

-- A text or nil as JSON.
function json.string_or_null(text) return text and json.string(text) or "null" end

return json
