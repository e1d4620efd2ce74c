-- Request ids: random UUIDs (RFC 9562, version 4) made here, so that none is ever taken over from a client.
local bit = require("bit")
local ffi = require("ffi")
local posix = require("posix")

local POOL_BYTES, ID_BYTES = 4096, 16
local pool, words, used = ffi.new("uint8_t[?]", POOL_BYTES), ffi.new("uint16_t[8]"), POOL_BYTES

local request_ids = {}

function request_ids.new()
  if used == POOL_BYTES then
    posix.random_bytes(pool, POOL_BYTES)
    used = 0
  end
  ffi.copy(words, pool + used, ID_BYTES)
  used = used + ID_BYTES
  return string.format("%04x%04x-%04x-%04x-%04x-%04x%04x%04x", words[0], words[1], words[2],
    bit.bor(bit.band(words[3], 0x0fff), 0x4000), bit.bor(bit.band(words[4], 0x3fff), 0x8000),
    words[5], words[6], words[7])
end

return request_ids
