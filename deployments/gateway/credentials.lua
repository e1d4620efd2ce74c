-- Who asks: by API key, or by a JWT whose signature Envoy's own filter has verified. Every refusal looks the same from
-- outside; the record says which it was.
local posix = require("posix")
local registry = require("registry")
local sha256 = require("sha256")

local JWT_FILTER = "envoy.filters.http.jwt_authn"
local KEY = "^Bearer (llma_(" .. ("[a-z2-7]"):rep(12) .. ")_" .. ("[A-Za-z0-9_-]"):rep(43) .. ")$"
local KEY_LENGTH = #"Bearer llma_" + 12 + 1 + 43
local TOKEN = "Bearer ey" -- the beginning of every JWT: base64url of `{"`
local ONE_TOKEN = "^" .. TOKEN .. "[A-Za-z0-9_.-]*$"
local NOBODY = ("0"):rep(64) -- compared with where there is no key, so that this takes as long

local credentials = {}

local SCHEME = "Bearer "

-- The header's value, or nil and why there is none to go by. The scheme has no case, and one space or more after it
-- (RFC 9110, 11.1 and 11.4).
local function bearer(sent)
  if sent.several.authorization then return nil, "several_keys" end
  local value = sent.values.authorization
  if not value or value == "" then return nil, "no_key" end
  if value:sub(1, #SCHEME) == SCHEME and value:byte(#SCHEME + 1) ~= 32 then return value end
  local scheme, credential = value:match("^(%a+) +(%S.*)$")
  if scheme and scheme:lower() == "bearer" then return SCHEME .. credential end
  return value
end

-- The key's identity; nil, the reason and, where the key itself is right, the identity that may not ask here.
local function by_key(value, tenant)
  local text, id
  if #value == KEY_LENGTH then text, id = value:match(KEY) end
  if not text then return nil, "unknown_key" end
  local key = registry.key(id)
  local same = sha256.equal(sha256.hex(text), key and key.hash or NOBODY)
  if not key or not same then return nil, "unknown_key" end
  if registry.revoked(id) then return nil, "revoked", key end
  if key.expires and key.expires <= posix.now() then return nil, "expired", key end
  if key.tenant ~= tenant.name then return nil, "other_tenant", key end
  return key
end

local function has(list, wanted)
  if type(list) ~= "table" then return list == wanted end
  for _, each in ipairs(list) do
    if each == wanted then return true end
  end
  return false
end

local function scopes_of(claim)
  if type(claim) == "table" then return claim end
  local list = {}
  for scope in tostring(claim or ""):gmatch("%S+") do list[#list + 1] = scope end
  return list
end

-- What the scopes of a token let it ask, as sets in which "*" is all. A scope counts as a whole: `read-model:*` is another.
local function rights(claim)
  local models, risk_classes = {}, {}
  for _, scope in ipairs(scopes_of(claim)) do
    local kind, name = tostring(scope):match("^(%l+):(%S+)$")
    if kind == "model" then models[name] = true elseif kind == "risk" then risk_classes[name] = true end
  end
  return models, risk_classes
end

-- `verified`: the claims of tokens by the name of the key set that has proved them.
local function by_token(verified, tenant)
  local expected, now = tenant.jwt, posix.now()
  local claims = expected and verified[expected.provider]
  if not claims then return nil, "other_tenant" end
  if claims.iss ~= expected.issuer or not has(claims.aud, expected.audience) then return nil, "other_tenant" end
  if type(claims.exp) ~= "number" or claims.exp <= now then return nil, "expired" end
  if type(claims.nbf) == "number" and claims.nbf > now then return nil, "not_yet_valid" end
  if type(claims.sub) ~= "string" or claims.sub == "" then return nil, "no_subject" end
  local models, risk_classes = rights(claims[expected.scopes_claim or "scope"])
  return {
    via = "jwt", actor = claims.sub, tenant = tenant.name, models = models, risk_classes = risk_classes,
    meter = "token " .. tenant.name .. " " .. claims.sub,
  }
end

-- Who asks at the tenant's door: an identity; or nil, the reason and whose key it was where that is known.
-- `sent`: the headers as they came.
function credentials.identify(handle, sent, tenant)
  local value, reason = bearer(sent)
  if not value then return nil, reason end
  if value:sub(1, #TOKEN) ~= TOKEN then return by_key(value, tenant) end -- Envoy's filter looks at no such header
  local verified = handle:streamInfo():dynamicMetadata():get(JWT_FILTER)
  if not verified then return nil, "invalid_token" end
  -- Envoy joins headers of one name by commas and may have verified only the beginning.
  if not value:find(ONE_TOKEN) then return nil, "several_keys" end
  return by_token(verified, tenant)
end

return credentials
