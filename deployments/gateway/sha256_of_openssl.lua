-- SHA-256 of the system's OpenSSL, which uses the processor's own instructions: over 1 GB/s. Not Envoy's own library:
-- that exports nothing. As sha256_in_lua.lua; `false` where the machine has no such library.
local ffi = require("ffi")

local LIBRARY = "libcrypto.so.3" -- the structure below is that of OpenSSL 3

ffi.cdef [[
typedef struct { uint32_t h[8], low, high, data[16], count, length; } llma_sha256;
int SHA256_Init(llma_sha256 *state);
int SHA256_Update(llma_sha256 *state, const void *data, size_t count);
int SHA256_Final(void *digest, llma_sha256 *state);
]]

local function load_functions()
  local crypto = ffi.load(LIBRARY)
  return crypto, crypto.SHA256_Init, crypto.SHA256_Update, crypto.SHA256_Final -- throws where one is missing
end

local loaded, crypto = pcall(load_functions)
if not loaded then return false end

local sha256_of_openssl = {}

function sha256_of_openssl.new() return ffi.new("llma_sha256") end

function sha256_of_openssl.start(state) crypto.SHA256_Init(state) end

function sha256_of_openssl.update(state, text) crypto.SHA256_Update(state, text, #text) end

function sha256_of_openssl.close(state, digest) crypto.SHA256_Final(digest, state) end

return sha256_of_openssl
