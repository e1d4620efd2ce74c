-- Reads JSON (RFC 8259) without building it: where the members of an object lie, and whether all of it is valid.
-- Stricter than needed for a well-meant body, so that vLLM cannot read another text than we do: no NaN, no invalid
-- UTF-8, no byte order mark, no nesting beyond DEPTH.
local ffi = require("ffi")
local new_table = require("table.new")

local DEPTH = 100
local QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44
local BRACE, BRACE_END, BRACKET, BRACKET_END = 123, 125, 91, 93
local OBJECT, ARRAY = 1, 0
local FOUND = 4 -- wanted members that most objects have, so that a table of them does not grow three times over

local json_scan = {}

-- What a byte is: of a plain piece of a string, white space, a digit, a hexadecimal digit.
local PLAIN, SPACE, DIGIT, HEX, ESCAPE = ffi.new("bool[256]"), ffi.new("bool[256]"), ffi.new("bool[256]"),
  ffi.new("bool[256]"), ffi.new("bool[256]")
for byte = 32, 127 do PLAIN[byte] = byte ~= QUOTE and byte ~= BACKSLASH end
for byte in (" \t\r\n"):gmatch(".") do SPACE[byte:byte()] = true end
for byte in ("0123456789"):gmatch(".") do DIGIT[byte:byte()] = true end
for byte in ("0123456789abcdefABCDEF"):gmatch(".") do HEX[byte:byte()] = true end
for byte in ('"\\/bfnrt'):gmatch(".") do ESCAPE[byte:byte()] = true end

-- Lua ends every string with a zero byte, which is in no class: loops over a class stop there by themselves.
local function after_space(p, i)
  while SPACE[p[i]] do i = i + 1 end
  return i
end

local function continues(byte) return byte >= 0x80 and byte < 0xc0 end

-- The index after one character of several bytes (RFC 3629: shortest form, no surrogates), or nil.
local function after_character(p, i)
  local first, second = p[i], p[i + 1]
  if first >= 0xc2 and first < 0xe0 then
    return continues(second) and i + 2 or nil
  elseif first >= 0xe0 and first < 0xf0 then
    local fits = continues(second) and not (first == 0xe0 and second < 0xa0) and not (first == 0xed and second > 0x9f)
    return fits and continues(p[i + 2]) and i + 3 or nil
  elseif first >= 0xf0 and first < 0xf5 then
    local fits = continues(second) and not (first == 0xf0 and second < 0x90) and not (first == 0xf4 and second > 0x8f)
    return fits and continues(p[i + 2]) and continues(p[i + 3]) and i + 4 or nil
  end
  return nil
end

local function after_escape(p, i)
  if ESCAPE[p[i + 1]] then return i + 2 end
  if p[i + 1] == 117 and HEX[p[i + 2]] and HEX[p[i + 3]] and HEX[p[i + 4]] and HEX[p[i + 5]] then return i + 6 end
  return nil
end

-- From the opening quote to the index after the closing one, or nil.
local function after_string(p, i)
  i = i + 1
  while true do
    while PLAIN[p[i]] do i = i + 1 end
    local byte = p[i]
    if byte == QUOTE then return i + 1 end
    local next_at
    if byte == BACKSLASH then
      next_at = after_escape(p, i)
    elseif byte >= 0x80 then
      next_at = after_character(p, i)
    end
    if not next_at then return nil end
    i = next_at
  end
end

local function after_digits(p, i)
  if not DIGIT[p[i]] then return nil end
  while DIGIT[p[i]] do i = i + 1 end
  return i
end

local function after_number(p, i)
  if p[i] == 45 then i = i + 1 end -- "-"
  local at = p[i] == 48 and i + 1 or after_digits(p, i) -- no leading zero
  if at and p[at] == 46 then at = after_digits(p, at + 1) end -- "."
  if at and (p[at] == 101 or p[at] == 69) then -- "e", "E"
    at = at + 1
    if p[at] == 43 or p[at] == 45 then at = at + 1 end
    at = after_digits(p, at)
  end
  return at
end

local function after_word(p, i)
  local first = p[i]
  if first == 116 and p[i + 1] == 114 and p[i + 2] == 117 and p[i + 3] == 101 then return i + 4 end
  if first == 110 and p[i + 1] == 117 and p[i + 2] == 108 and p[i + 3] == 108 then return i + 4 end
  if first == 102 and p[i + 1] == 97 and p[i + 2] == 108 and p[i + 3] == 115 and p[i + 4] == 101 then return i + 5 end
  return nil
end

local function after_scalar(p, i)
  local byte = p[i]
  if byte == QUOTE then return after_string(p, i) end
  if byte == 45 or DIGIT[byte] then return after_number(p, i) end
  return after_word(p, i)
end

-- From a key's opening quote to the first byte of its value, or nil.
local function after_key(p, i)
  if p[i] ~= QUOTE then return nil end
  local at = after_string(p, i)
  if not at then return nil end
  at = after_space(p, at)
  return p[at] == COLON and after_space(p, at + 1) or nil
end

local kinds = ffi.new("uint8_t[?]", DEPTH + 1)

-- From the first byte of a value to the index after it, or nil. `depth`: of the containers that it lies in.
local function after_value(p, i, depth)
  local outer = depth
  while true do
    local byte, opened = p[i], false
    if byte == BRACE or byte == BRACKET then
      depth = depth + 1
      if depth > DEPTH then return nil end
      kinds[depth] = byte == BRACE and OBJECT or ARRAY
      i = after_space(p, i + 1)
      if p[i] ~= (byte == BRACE and BRACE_END or BRACKET_END) then
        opened = true
        if byte == BRACE then i = after_key(p, i) end
        if not i then return nil end
      end
    else
      i = after_scalar(p, i)
      if not i then return nil end
      if depth == outer then return i end
      i = after_space(p, i)
    end
    while not opened do -- the value has ended: what follows it?
      local kind = kinds[depth]
      if p[i] == COMMA then
        i = after_space(p, i + 1)
        if kind == OBJECT then i = after_key(p, i) end
        if not i then return nil end
        opened = true
      elseif p[i] == (kind == OBJECT and BRACE_END or BRACKET_END) then
        depth = depth - 1
        i = i + 1
        if depth == outer then return i end
        i = after_space(p, i)
      else
        return nil
      end
    end
  end
end

local INVALID, NO_OBJECT = "not valid JSON", "not a JSON object"

-- Where members of the object text[from..to] lie: two tables by name, of the first byte of the value and of its last, as
-- string.sub takes them. nil and why, where it is no valid object or has one of the wanted members twice.
-- `wanted`: set of names; `name_of`: decodes a key that is written with escapes.
function json_scan.members(text, from, to, wanted, name_of)
  local p = ffi.cast("const uint8_t *", text)
  local i = after_space(p, from - 1)
  if p[i] ~= BRACE then return nil, after_value(p, i, 0) and NO_OBJECT or INVALID end
  local firsts, lasts = new_table(0, FOUND), new_table(0, FOUND)
  i = after_space(p, i + 1)
  local more = p[i] ~= BRACE_END
  if not more then i = i + 1 end
  while more do
    local key_at = i
    i = after_key(p, i)
    if not i then return nil, INVALID end
    local close = after_string(p, key_at)
    local name = text:sub(key_at + 2, close - 1)
    if name:find("\\", 1, true) then name = name_of(name) end
    local value_at = i
    i = after_value(p, i, 1)
    if not i then return nil, INVALID end
    if wanted[name] then
      if firsts[name] then return nil, "a JSON object with two members '" .. name .. "'" end
      firsts[name], lasts[name] = value_at + 1, i
    end
    i = after_space(p, i)
    if p[i] == COMMA then
      i = after_space(p, i + 1)
    elseif p[i] == BRACE_END then
      i, more = i + 1, false
    else
      return nil, INVALID
    end
  end
  while i < to and SPACE[p[i]] do i = i + 1 end
  if i ~= to then return nil, INVALID end
  return firsts, lasts
end

-- Where the elements of the array text[from..to] lie, which is known to be valid: first and last bytes, alternating.
function json_scan.elements(text, from, to)
  local p, spans = ffi.cast("const uint8_t *", text), {}
  local i = after_space(p, from)
  while i < to - 1 do
    local close = after_value(p, i, 1)
    spans[#spans + 1], spans[#spans + 2] = i + 1, close
    i = after_space(p, after_space(p, close) + 1)
  end
  return spans
end

-- How many elements the array text[from..to] has, which is known to be valid.
function json_scan.count(text, from, to)
  local p, count = ffi.cast("const uint8_t *", text), 0
  local i = after_space(p, from)
  while i < to - 1 do
    count = count + 1
    i = after_space(p, after_space(p, after_value(p, i, 1)) + 1)
  end
  return count
end

-- Whether all of the text is one valid value.
function json_scan.valid(text)
  local p = ffi.cast("const uint8_t *", text)
  local i = after_value(p, after_space(p, 0), 0)
  return i ~= nil and after_space(p, i) == #text
end

-- Whether the text is UTF-8.
function json_scan.utf8(text)
  local p, i = ffi.cast("const uint8_t *", text), 0
  while i < #text do
    local at = p[i] < 0x80 and i + 1 or after_character(p, i)
    if not at then return false end
    i = at
  end
  return true
end

return json_scan
