-- SHA-256 (FIPS 180-4), also of what arrives in pieces, and a comparison that takes the same time for any difference.
local bit = require("bit")
local ffi = require("ffi")
local in_lua = require("sha256_in_lua")
local of_openssl = require("sha256_of_openssl")

local bswap, rshift = bit.bswap, bit.rshift
local DIGEST_BYTES, HEX_BYTES = 32, 64
local fastest = of_openssl or in_lua

-- The two hexadecimal digits of each byte.
local DIGITS = ffi.new("uint16_t[256]")
for byte = 0, 255 do
  local high, low = bit.tohex(byte, 2):byte(1, 2)
  DIGITS[byte] = ffi.abi("le") and low * 256 + high or high * 256 + low
end

local digest, hex = ffi.new("int32_t[8]"), ffi.new("uint16_t[32]")
local bytes = ffi.cast("uint8_t *", digest)

local function closed_as_hex(state)
  fastest.close(state, digest)
  for at = 0, DIGEST_BYTES - 1 do hex[at] = DIGITS[bytes[at]] end
  return ffi.string(hex, HEX_BYTES)
end

local Hash = {}
Hash.__index = Hash

-- Takes the next piece of the text.
function Hash:update(text)
  fastest.update(self.state, text)
  return self
end

-- The hash as 64 hexadecimal digits. Ends the hash: no update after it.
function Hash:hex() return closed_as_hex(self.state) end

local sha256 = {}

function sha256.new()
  local state = fastest.new()
  fastest.start(state)
  return setmetatable({ state = state }, Hash)
end

local only = fastest.new()

local function hashed(text)
  fastest.start(only)
  fastest.update(only, text)
  return only
end

function sha256.hex(text) return closed_as_hex(hashed(text)) end

-- The first 64 bits of the hash as two numbers.
function sha256.prefix(text)
  fastest.close(hashed(text), digest)
  return bswap(digest[0]), bswap(digest[1])
end

-- A place in [0, 1): the first 48 bits of the hash.
function sha256.point(text)
  local first, second = sha256.prefix(text)
  return (first % 2^32 * 2^16 + rshift(second, 16)) / 2^48
end

-- Whether two texts are equal. Takes time by their length alone.
function sha256.equal(one, other)
  if #one ~= #other then return false end
  local difference = 0
  for i = 1, #one do difference = bit.bor(difference, bit.bxor(one:byte(i), other:byte(i))) end
  return difference == 0
end

return sha256
