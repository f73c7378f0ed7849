-- Looks whether entries of a list or table still stand for a fact or document; removes those that do not.
--
-- KEYS[1]  the sorted set or hash
-- ARGV[1]  request: root, list (its name without the root), repair (whether stray entries are removed), members
-- Reply    the members that stand for nothing

local request = cjson.decode(ARGV[1])
local root = request.root
local list, principal = string.match(request.list, '^(visible):(.*)$')
list = list or request.list

local function given(value) return value and value ~= '' end

local function is_listed(principals_json)
  local decoded, principals = pcall(cjson.decode, principals_json or '')
  if not decoded then return true end
  if #principals == 0 then return principal == '*' end
  for _, one in ipairs(principals) do
    if one == principal then return true end
  end
  return false
end

local BELONGS = {
  facts = function(fact) return not given(fact.document) end,
  documents = function(fact) return given(fact.document) end,
  visible = function(fact) return not given(fact.document) and is_listed(fact.principals) end,
  expiring = function(fact) return fact.expires_at ~= '' end,
  pending = function() return true end,
  parked = function(fact) return fact.indexed ~= '1' end,
  attempts = function(_, fact_id) return redis.call('ZSCORE', root .. 'pending', fact_id) end,
  contents = function(fact, _, digest) return fact.digest == digest and not given(fact.document) end,
}

local FIELDS = {'document', 'principals', 'expires_at', 'indexed', 'digest'}

local function stands_for_something(member)
  local fact_id = member
  if list == 'contents' then fact_id = redis.call('HGET', KEYS[1], member) end
  -- It has gone meanwhile.
  if not fact_id then return true end
  local values = redis.pcall('HMGET', root .. 'fact:' .. fact_id, unpack(FIELDS))
  if values.err then return true end
  if redis.call('EXISTS', root .. 'fact:' .. fact_id) == 0 then return false end
  local fact = {}
  for place, field in ipairs(FIELDS) do fact[field] = values[place] end
  return BELONGS[list](fact, fact_id, member)
end

local is_hash = redis.call('TYPE', KEYS[1]).ok == 'hash'
local stray = {}
for _, member in ipairs(request.members) do
  local is_there = redis.call(is_hash and 'HEXISTS' or 'ZSCORE', KEYS[1], member)
  if is_there and is_there ~= 0 and not stands_for_something(member) then
    stray[#stray + 1] = member
    if request.repair then redis.call(is_hash and 'HDEL' or 'ZREM', KEYS[1], member) end
  end
end
return stray
