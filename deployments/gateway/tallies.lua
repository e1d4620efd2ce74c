-- Refused requests on the record: the first of a key in a minute have a record each, and of a network without one. What comes
-- beyond is counted, and a record says how many there were, so that nobody fills the disk by being refused. Beyond so many in a
-- minute a network is told to wait; who has a key does not notice.
-- A network is an IPv4 address, or the 64 bits before an IPv6 address's own.
local posix = require("posix")
local records = require("records")

local WINDOW_S, WRITE_EVERY_S = 60, 1
local NAMES = 10000 -- of keys and networks, that are told apart in a minute
local KINDS = 1000 -- of counts at once; beyond that they have no address, tenant and key
local RECORDED_OF_ALL = 6000 -- in a minute, of all networks

local tallies = {}
local recorded_most, most = 0, 0
local began, wrote_at = 0, 0
local seen, names, recorded = {}, 0, 0
local counts, kinds = {}, 0

-- In a minute: how many of a key or a network have a record each, and how many of a network are answered.
function tallies.configure(settings) recorded_most, most = settings.recorded, settings.most end

local function groups_of(text)
  local groups = {}
  for group in text:gmatch("[^:]+") do groups[#groups + 1] = group end
  return groups
end

local function network_of(address)
  if not address or not address:find(":", 1, true) or address:find(".", 1, true) then return address or "" end
  local bare = address:gsub("[%[%]]", "")
  local before, after = bare:match("^(.-)::(.*)$")
  local groups = groups_of(before or bare)
  if before then
    local last = groups_of(after)
    for _ = 1, 8 - #groups - #last do groups[#groups + 1] = "0" end
    for _, group in ipairs(last) do groups[#groups + 1] = group end
  end
  return table.concat(groups, ":", 1, math.min(4, #groups))
end

-- Which one of its name in this minute.
local function number_of(name)
  local now = posix.monotonic()
  if now - began >= WINDOW_S then seen, names, recorded, began = {}, 0, 0, now end
  local number = seen[name]
  if not number then
    if names >= NAMES then return recorded_most + 1 end
    names, number = names + 1, 0
  end
  seen[name] = number + 1
  return number + 1
end

-- Counts one more refused request. Whether it has a record of its own, and whether its network has to wait. `known.meter` names
-- the key or token of one that is authenticated.
function tallies.note(known)
  if known.meter then return number_of(known.meter) <= recorded_most, false end
  local number = number_of(network_of(known.remote))
  local own = number <= recorded_most and recorded < RECORDED_OF_ALL
  if own then recorded = recorded + 1 end
  return own, number > most
end

-- Seconds until a network that has to wait is answered again.
function tallies.wait_s() return math.max(1, math.ceil(began + WINDOW_S - posix.monotonic())) end

-- Puts a refused request among those that have no record of their own.
function tallies.count(refused)
  local known = kinds < KINDS and refused or { id = refused.id, at = refused.at, status = refused.status, reason = refused.reason }
  local kind = table.concat({ known.status, known.reason, known.remote or "", known.tenant or "", known.key or "" }, "\n")
  local count = counts[kind]
  if not count then
    count = { id = known.id, at = known.at, tenant = known.tenant, key = known.key, status = known.status, reason = known.reason,
      remote = known.remote, count = 0 }
    counts[kind], kinds = count, kinds + 1
  end
  count.count = count.count + 1
end

-- Writes down what was counted. What the disk does not take waits.
function tallies.write()
  local now = posix.monotonic()
  if kinds == 0 or now - wrote_at < WRITE_EVERY_S then return end
  wrote_at = now
  for kind, count in pairs(counts) do
    if not records.denied(count) then return end
    counts[kind], kinds = nil, kinds - 1
  end
end

return tallies
