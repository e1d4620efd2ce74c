-- Where the line of a name lies in a journal. Kept outside of Lua's own memory, so that ten thousand tenants cost its
-- garbage collector nothing. Names are known by 64 bits of their SHA-256: whoever reads the line compares the name.
local bit = require("bit")
local ffi = require("ffi")
local sha256 = require("sha256")

local FIRST_CAPACITY = 64 -- a power of two
local NOWHERE = -1

ffi.cdef [[ typedef struct { int32_t high, low; double offset; uint32_t length; bool used, revoked; } llma_place; ]]

local Places = {}
Places.__index = Places

local places = {}

function places.new()
  return setmetatable({ slots = ffi.new("llma_place[?]", FIRST_CAPACITY), capacity = FIRST_CAPACITY, count = 0 }, Places)
end

local function slot_of(slots, capacity, high, low)
  local at = bit.band(high, capacity - 1)
  while slots[at].used and (slots[at].high ~= high or slots[at].low ~= low) do at = bit.band(at + 1, capacity - 1) end
  return slots[at]
end

local function grow(self)
  local capacity = self.capacity * 2
  local slots = ffi.new("llma_place[?]", capacity)
  for at = 0, self.capacity - 1 do
    local old = self.slots[at]
    if old.used then ffi.copy(slot_of(slots, capacity, old.high, old.low), old, ffi.sizeof("llma_place")) end
  end
  self.slots, self.capacity = slots, capacity
end

local function place(self, name)
  if self.count * 2 >= self.capacity then grow(self) end
  local high, low = sha256.prefix(name)
  local found = slot_of(self.slots, self.capacity, high, low)
  if not found.used then
    found.used, found.high, found.low, found.offset = true, high, low, NOWHERE
    self.count = self.count + 1
  end
  return found
end

-- The name's line is this one from now on. What was revoked stays so.
function Places:put(name, offset, length)
  local found = place(self, name)
  found.offset, found.length = offset, length
end

-- The name has no line any more.
function Places:remove(name) place(self, name).offset = NOWHERE end

-- What the name's line says no longer holds.
function Places:revoke(name) place(self, name).revoked = true end

-- Offset and length of the name's line, and whether it is revoked; nil where there is none.
function Places:find(name)
  local found = slot_of(self.slots, self.capacity, sha256.prefix(name))
  if not found.used or found.offset == NOWHERE then return nil end
  return found.offset, found.length, found.revoked
end

return places
