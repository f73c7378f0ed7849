-- Looks whether keys of a namespace belong where they are and agree with each other; removes what belongs to nothing.
--
-- KEYS     the keys to look at
-- ARGV[1]  request: root, now, repair (whether stray keys are removed), most (commands after which it stops),
--          removals (keys that are removed at most), known (expected type of each key that stands alone, "" for any)
-- Reply    {how many keys were looked at, facts among them, findings: a flat list of kind, name, "1" when it was mended}

local LABELS = {'principals', 'tags', 'source', 'meta', 'fact_id', 'document', 'created_at', 'updated_at'}
local LISTED = {'metadata', 'tags', 'source', 'principals', 'document', 'digest', 'version', 'revision', 'passages',
  'sections', 'seq', 'created_at', 'updated_at', 'expires_at', 'indexed'}
local SEPARATOR = '\31'

local request = cjson.decode(ARGV[1])
local root = request.root
local commands, removals, facts = 0, 0, 0
local findings = {}

local function call(...)
  commands = commands + 1
  return redis.call(...)
end

local live = call('HMGET', root .. 'generation', 'number', 'dimension')
local live_number, vector_bytes = live[1], 4 * tonumber(live[2] or 0)
local next_number = call('HGET', root .. 'rebuild', 'number')
local retired = nil

local function note(kind, name, mended)
  findings[#findings + 1] = kind
  findings[#findings + 1] = name
  findings[#findings + 1] = mended and '1' or '0'
end

local function note_stray(kind, key)
  if request.repair then
    call('DEL', key)
    removals = removals + 1
  end
  note(kind, key, request.repair)
end

local function is_retired(number)
  if not retired then
    retired = {}
    for _, member in ipairs(call('ZRANGE', root .. 'retired', 0, -1)) do
      retired[string.match(member, '^(%d+)') or ''] = true
    end
  end
  return retired[number]
end

-- Vectors and parts may come before the fact or document that they are for is switched to them.
local function is_under_way(number, fact_id, revision)
  local name = fact_id .. ':' .. revision
  return call('ZSCORE', root .. 'inserts', name)
    or call('ZSCORE', root .. 'staged', number .. ':' .. name)
    or call('ZSCORE', root .. 'leftovers', number .. ':' .. name)
end

local function listed_principals(principals_json)
  local principals = cjson.decode(principals_json)
  if #principals == 0 then principals = {'*'} end
  return principals
end

local function is_readable(fact)
  for _, field in ipairs({'version', 'passages', 'sections', 'seq', 'created_at', 'updated_at'}) do
    if not tonumber(fact[field] or nil) then return false end
  end
  if not fact.digest or not fact.revision or not fact.source or not fact.document or not fact.expires_at then
    return false
  end
  if tonumber(string.match(fact.revision, '(%d+)$') or -1) ~= tonumber(fact.passages) then return false end
  if fact.indexed ~= '0' and fact.indexed ~= '1' then return false end
  for _, field in ipairs({'metadata', 'tags', 'principals'}) do
    local decoded, value = pcall(cjson.decode, fact[field] or '')
    if not decoded or type(value) ~= 'table' then return false end
  end
  return true
end

local function score_differs(key, fact_id, score)
  local stored = redis.pcall('ZSCORE', root .. key, fact_id)
  commands = commands + 1
  return type(stored) ~= 'table' and tonumber(stored or nil) ~= tonumber(score)
end

local function is_unlisted(fact_id, fact)
  if fact.expires_at ~= '' and score_differs('expiring', fact_id, fact.expires_at) then return true end
  if fact.document ~= '' then return score_differs('documents', fact_id, fact.seq) end
  if score_differs('facts', fact_id, fact.seq) then return true end
  for _, principal in ipairs(listed_principals(fact.principals)) do
    if score_differs('visible:' .. principal, fact_id, fact.seq) then return true end
  end
  local owner = call('HGET', root .. 'contents', fact.digest)
  if owner == fact_id then return false end
  -- Of two facts with one content either may be the one that is found by it.
  return not owner or call('HGET', root .. 'fact:' .. owner, 'digest') ~= fact.digest
end

local function inspect_part(found, key, needed, fact, expected)
  local labels = redis.pcall('HMGET', key, unpack(LABELS))
  commands = commands + 1
  if labels.err or call('HEXISTS', key, needed) == 0 then
    found.missing_parts = true
    return false
  end
  for place = 1, #LABELS do
    if expected[place] == nil then expected[place] = labels[place] end
    if labels[place] ~= expected[place] then found.wrong_labels = true end
  end
  local ends = call('PEXPIRETIME', key)
  if ends ~= (tonumber(fact.expires_at) or -1) then found.wrong_labels = true end
  return true
end

local function inspect_parts(found, fact_id, fact)
  local expected = {table.concat(listed_principals(fact.principals), SEPARATOR),
    table.concat(cjson.decode(fact.tags), SEPARATOR), fact.source}
  if fact.document == '' then
    expected[5], expected[6], expected[7], expected[8] = fact_id, '', fact.created_at, fact.updated_at
    if fact.metadata == '{}' then expected[4] = '' end
  end
  local without = false
  local name = ':' .. live_number .. ':' .. fact_id .. ':' .. fact.revision .. ':'
  for position = 0, tonumber(fact.passages) - 1 do
    local key = root .. 'passage' .. name .. string.format('%d', position)
    if inspect_part(found, key, 'text', fact, expected) then
      local length = call('HSTRLEN', key, 'vector')
      if length == 0 then without = true
      elseif length ~= vector_bytes then found.wrong_vectors = true end
    end
  end
  for position = 0, tonumber(fact.sections) - 1 do
    inspect_part(found, root .. 'section' .. name .. string.format('%d', position), 'stem', fact, expected)
  end
  return without
end

local function inspect_fact(key, fact_id)
  facts = facts + 1
  local values = call('HMGET', key, unpack(LISTED))
  local fact = {}
  for place, field in ipairs(LISTED) do fact[field] = values[place] end
  if call('HEXISTS', key, 'content') == 0 or not is_readable(fact) then
    note('damaged_records', fact_id)
    return
  end
  if fact.expires_at ~= '' and tonumber(fact.expires_at) <= tonumber(request.now) then
    if score_differs('expiring', fact_id, fact.expires_at) then note('unlisted', fact_id) end
    return
  end
  local found = {}
  local without = live_number and inspect_parts(found, fact_id, fact)
  local waits = call('ZSCORE', root .. 'pending', fact_id) or call('HEXISTS', root .. 'parked', fact_id) == 1
  if without and fact.indexed == '1' then found.missing_vectors = true end
  if fact.indexed == '0' and not waits then found.forgotten = true end
  if is_unlisted(fact_id, fact) then found.unlisted = true end
  for kind in pairs(found) do note(kind, fact_id) end
end

local function inspect_stored_part(key, number, fact_id, revision, position, count_field)
  -- Nobody knows which generation is the live one.
  if not live_number then return end
  if number ~= live_number then
    if number ~= next_number and not is_retired(number) and not is_under_way(number, fact_id, revision) then
      note_stray('orphaned_generations', key)
    end
    return
  end
  local fact = redis.pcall('HMGET', root .. 'fact:' .. fact_id, 'revision', count_field, 'content')
  commands = commands + 1
  if fact.err then return end
  if fact[1] == revision and tonumber(position) < (tonumber(fact[2] or nil) or math.huge) then return end
  -- Nobody knows what belongs to a fact that cannot be read.
  if fact[3] and not fact[1] then return end
  if is_under_way(number, fact_id, revision) then return end
  note_stray(fact[3] and 'stale_parts' or 'stray_parts', key)
end

local function inspect_beside(key, fact_id)
  if call('EXISTS', root .. 'fact:' .. fact_id) == 1 then return end
  for _, name in ipairs({'staged', 'leftovers'}) do
    for _, member in ipairs(call('ZRANGE', root .. name, 0, 999)) do
      if string.find(member, fact_id, 1, true) then return end
    end
  end
  note_stray('stray_history', key)
end

local TYPES = {fact = 'hash', history = 'list', document = 'hash', visible = 'zset', passage = 'hash', section = 'hash',
  query_vector = 'string', import = 'string'}

local function inspect(key)
  local name = string.sub(key, #root + 1)
  local kind, rest = string.match(name, '^([%a_]+):(.+)$')
  local stored = call('TYPE', key).ok
  if stored == 'none' then return end
  local expected = TYPES[kind or ''] or request.known[name]
  local number, fact_id, revision, position = string.match(rest or '', '^(%d+):(.+):([^:]+):(%d+)$')
  local is_part = kind == 'passage' or kind == 'section'
  if not expected or (is_part and not number) then return note('unknown_keys', key) end
  if expected ~= '' and stored ~= expected then return note('foreign_types', key) end
  if kind == 'fact' then return inspect_fact(key, rest) end
  if is_part then return inspect_stored_part(key, number, fact_id, revision, position, kind .. 's') end
  if kind == 'history' or kind == 'document' then return inspect_beside(key, rest) end
end

local looked_at = 0
for _, key in ipairs(KEYS) do
  inspect(key)
  looked_at = looked_at + 1
  if commands >= request.most or removals >= request.removals then break end
end
return {looked_at, facts, findings}
