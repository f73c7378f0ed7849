-- Functions that the scripts of a rebuild share.
--
-- A request is one JSON object in ARGV[1]. KEYS[1] is the hash of the rebuild; the other keys are built from
-- request.root ("kb:{namespace}:"), so all of them live on the shard of that hash tag. request.token names the owner:
-- whose lease was taken over by another can change nothing any more, and is told {"lost"}.

local request = cjson.decode(ARGV[1])
local root = request.root
local rebuild = redis.call('HMGET', KEYS[1], 'owner', 'number', 'base')
if rebuild[1] ~= request.token or redis.call('HGET', root .. 'generation', 'number') ~= rebuild[3] then
  return {'lost'}
end
local next_number, live_number = rebuild[2], rebuild[3]
local changed = root .. 'changed'

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function renew()
  redis.call('HSET', KEYS[1], 'lease', string.format('%.0f', now_ms() + request.lease))
end

local function part_keys(fact_id, revision, place, passages)
  local kind, position = 'passage', place
  if place >= passages then kind, position = 'section', place - passages end
  local name = fact_id .. ':' .. revision .. ':' .. string.format('%d', position)
  return root .. kind .. ':' .. live_number .. ':' .. name, root .. kind .. ':' .. next_number .. ':' .. name
end

local function mark_pending(fact_id)
  redis.call('HSET', root .. 'fact:' .. fact_id, 'indexed', '0')
  redis.call('ZADD', root .. 'pending', 'NX', string.format('%.0f', now_ms()), fact_id)
end

local function copy_without_vector(from, to)
  local fields = redis.call('HGETALL', from)
  local kept = {}
  for at = 1, #fields, 2 do
    if fields[at] ~= 'vector' then
      kept[#kept + 1] = fields[at]
      kept[#kept + 1] = fields[at + 1]
    end
  end
  if #kept == 0 then return false end
  redis.call('DEL', to)
  redis.call('HSET', to, unpack(kept))
  local ends = redis.call('PEXPIRETIME', from)
  if ends > 0 then redis.call('PEXPIREAT', to, string.format('%.0f', ends)) end
  return true
end

-- Copies one part; false when there is none.
local function copy_part(fact_id, revision, place, passages)
  local from, to = part_keys(fact_id, revision, place, passages)
  if place >= passages then return redis.call('COPY', from, to, 'REPLACE') == 1 end
  if not request.with_vectors then return copy_without_vector(from, to) end
  local length = redis.call('HSTRLEN', from, 'vector')
  if length > 0 and length ~= request.vector_bytes then
    mark_pending(fact_id)
    return copy_without_vector(from, to)
  end
  if length == 0 and redis.call('HGET', root .. 'fact:' .. fact_id, 'indexed') == '1' then mark_pending(fact_id) end
  return redis.call('COPY', from, to, 'REPLACE') == 1
end

-- Copies the parts of a fact from a place on, so many at most. Returns where it stopped (nil at the end), the revision,
-- how many were copied, and whether one was missing.
local function copy_fact(fact_id, place, revision, most)
  local fact = redis.call('HMGET', root .. 'fact:' .. fact_id, 'revision', 'passages', 'sections')
  if not fact[1] then return nil, '', 0, false end
  if fact[1] ~= revision then place = 0 end
  local passages = tonumber(fact[2])
  local total = passages + tonumber(fact[3])
  local missing = false
  local last = math.min(total, place + most) - 1
  for at = place, last do
    if not copy_part(fact_id, fact[1], at, passages) then missing = true end
  end
  local stopped = nil
  if last + 1 < total then stopped = last + 1 end
  return stopped, fact[1], last + 1 - place, missing
end
