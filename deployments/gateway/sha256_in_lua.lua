-- SHA-256 (FIPS 180-4) in Lua alone, for a machine without OpenSSL's library: some 100 MB/s.
local bit = require("bit")
local ffi = require("ffi")

local band, bxor, ror, rshift, tobit = bit.band, bit.bxor, bit.ror, bit.rshift, bit.tobit
local bswap = bit.bswap
local BLOCK = 64

local K = ffi.new("int32_t[64]", {
  0x428a2f98, 0x71374491, 0xb5c0fbcf - 2^32, 0xe9b5dba5 - 2^32, 0x3956c25b, 0x59f111f1, 0x923f82a4 - 2^32, 0xab1c5ed5 - 2^32,
  0xd807aa98 - 2^32, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe - 2^32, 0x9bdc06a7 - 2^32, 0xc19bf174 - 2^32,
  0xe49b69c1 - 2^32, 0xefbe4786 - 2^32, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152 - 2^32, 0xa831c66d - 2^32, 0xb00327c8 - 2^32, 0xbf597fc7 - 2^32, 0xc6e00bf3 - 2^32, 0xd5a79147 - 2^32, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e - 2^32, 0x92722c85 - 2^32,
  0xa2bfe8a1 - 2^32, 0xa81a664b - 2^32, 0xc24b8b70 - 2^32, 0xc76c51a3 - 2^32, 0xd192e819 - 2^32, 0xd6990624 - 2^32, 0xf40e3585 - 2^32, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814 - 2^32, 0x8cc70208 - 2^32, 0x90befffa - 2^32, 0xa4506ceb - 2^32, 0xbef9a3f7 - 2^32, 0xc67178f2 - 2^32,
})

local W = ffi.new("int32_t[64]")

local function expand(block)
  local words = ffi.cast("const int32_t *", block)
  for i = 0, 15 do W[i] = bswap(words[i]) end
  for i = 16, 63 do
    local near, far = W[i - 2], W[i - 15]
    local s1 = bxor(ror(near, 17), ror(near, 19), rshift(near, 10))
    local s0 = bxor(ror(far, 7), ror(far, 18), rshift(far, 3))
    W[i] = tobit(W[i - 16] + s0 + W[i - 7] + s1)
  end
end

-- One round without moving eight words along: the caller gives them in the order that the round sees.
local function round(a, b, c, e, f, g, h, k)
  local t1 = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(g, band(e, bxor(f, g))) + k
  return t1, tobit(t1 + bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, bxor(b, c)), band(b, c)))
end

local function compress(H, block)
  expand(block)
  local a, b, c, d, e, f, g, h = H[0], H[1], H[2], H[3], H[4], H[5], H[6], H[7]
  local t
  for i = 0, 63, 8 do
    t, h = round(a, b, c, e, f, g, h, K[i] + W[i]) d = tobit(d + t)
    t, g = round(h, a, b, d, e, f, g, K[i + 1] + W[i + 1]) c = tobit(c + t)
    t, f = round(g, h, a, c, d, e, f, K[i + 2] + W[i + 2]) b = tobit(b + t)
    t, e = round(f, g, h, b, c, d, e, K[i + 3] + W[i + 3]) a = tobit(a + t)
    t, d = round(e, f, g, a, b, c, d, K[i + 4] + W[i + 4]) h = tobit(h + t)
    t, c = round(d, e, f, h, a, b, c, K[i + 5] + W[i + 5]) g = tobit(g + t)
    t, b = round(c, d, e, g, h, a, b, K[i + 6] + W[i + 6]) f = tobit(f + t)
    t, a = round(b, c, d, f, g, h, a, K[i + 7] + W[i + 7]) e = tobit(e + t)
  end
  H[0], H[1], H[2], H[3] = tobit(H[0] + a), tobit(H[1] + b), tobit(H[2] + c), tobit(H[3] + d)
  H[4], H[5], H[6], H[7] = tobit(H[4] + e), tobit(H[5] + f), tobit(H[6] + g), tobit(H[7] + h)
end

local function start(H)
  H[0], H[1], H[2], H[3] = 0x6a09e667, 0xbb67ae85 - 2^32, 0x3c6ef372, 0xa54ff53a - 2^32
  H[4], H[5], H[6], H[7] = 0x510e527f, 0x9b05688c - 2^32, 0x1f83d9ab, 0x5be0cd19
end

local sha256_in_lua = {}

-- The state of a hash; nothing of it counts before `start`.
function sha256_in_lua.new() return { H = ffi.new("int32_t[8]"), rest = ffi.new("uint8_t[64]"), kept = 0, size = 0 } end

function sha256_in_lua.start(state)
  start(state.H)
  state.kept, state.size = 0, 0
end

function sha256_in_lua.update(state, text)
  local bytes, count, at = ffi.cast("const uint8_t *", text), #text, 0
  state.size = state.size + count
  if state.kept > 0 then
    at = math.min(BLOCK - state.kept, count)
    ffi.copy(state.rest + state.kept, bytes, at)
    state.kept = state.kept + at
    if state.kept < BLOCK then return end
    compress(state.H, state.rest)
    state.kept = 0
  end
  while count - at >= BLOCK do
    compress(state.H, bytes + at)
    at = at + BLOCK
  end
  state.kept = count - at
  ffi.copy(state.rest, bytes + at, state.kept)
end

-- Ends the hash and puts its 32 bytes into `digest`, an int32_t[8].
function sha256_in_lua.close(state, digest)
  local rest, kept = state.rest, state.kept
  rest[kept] = 0x80
  ffi.fill(rest + kept + 1, BLOCK - kept - 1)
  if kept >= BLOCK - 8 then
    compress(state.H, rest)
    ffi.fill(rest, BLOCK)
  end
  local length = ffi.cast("int32_t *", rest)
  length[14] = bswap(tobit(math.floor(state.size / 2^29)))
  length[15] = bswap(tobit(state.size % 2^29 * 8))
  compress(state.H, rest)
  for at = 0, 7 do digest[at] = bswap(state.H[at]) end
end

return sha256_in_lua
