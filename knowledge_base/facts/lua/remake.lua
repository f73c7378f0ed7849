-- Makes the passages and sections of a fact anew, without touching what it says: same version, no history.
--
-- Where the texts are those that are stored, only what is missing or wrong is written. Where the cut has changed, the
-- fact is switched to parts of another name: a vector that is on its way for the old ones never meets the new texts.
--
-- KEYS[1]  the fact's key
-- ARGV[1]  request: root, now, number, fact_id, base_version, base_seq, base_revision, revision (taken when the cut has
--          changed), labels, passages, sections, vector_bytes, most (parts written at once), due (when the indexer may take over)
-- Reply    {"same"} | {"written"} | {"more"}, to be called again | {"switched", revision}
--          | {"missing"} | {"document"} | {"conflict"} | {"blocked", key} when something else stands where a part should

local LABELS = {'principals', 'tags', 'source', 'meta', 'fact_id', 'document', 'created_at', 'updated_at'}

local fact = read_live_fact(request.fact_id)
if not fact then return {'missing'} end
if given(fact.document) then return {'document'} end
if fact.version ~= request.base_version or fact.seq ~= request.base_seq or fact.revision ~= request.base_revision then
  return {'conflict'}
end

local function expected_labels()
  local labels = request.labels
  return {labels.principals, labels.tags, labels.source, labels.meta,
    request.fact_id, fact.document, fact.created_at, fact.updated_at}
end

local function foreign_key(keys)
  for _, key in ipairs(keys) do
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'hash' and kind ~= 'none' then return key end
  end
  return nil
end

local function is_same_cut()
  if tonumber(fact.passages) ~= #request.passages then return false end
  for position, text in ipairs(request.passages) do
    local stored = redis.call('HGET', passage_key(request.fact_id, fact.revision, position - 1), 'text')
    if stored and stored ~= text then return false end
  end
  return true
end

local expected = expected_labels()

local function is_as_expected(key, field, value)
  if redis.call('HGET', key, field) ~= value then return false end
  for place, stored in ipairs(redis.call('HMGET', key, unpack(LABELS))) do
    if stored ~= expected[place] then return false end
  end
  local expires = redis.call('PEXPIRETIME', key)
  if given(fact.expires_at) then return expires == tonumber(fact.expires_at) end
  return expires == -1
end

local function write_passage(position, text)
  local key = passage_key(request.fact_id, fact.revision, position - 1)
  local lost = redis.call('HGET', key, 'text') == false
  if is_as_expected(key, 'text', text) then return false end
  -- Nobody knows which text the vector of a passage without one belongs to.
  if lost then redis.call('HDEL', key, 'vector') end
  redis.call('PERSIST', key)
  write_hash(key, request.fact_id, fact, 'text', text)
  return true
end

local function write_section(position, stem)
  local key = section_key(request.fact_id, fact.revision, position - 1)
  if is_as_expected(key, 'stem', stem)
    and redis.call('HGET', key, 'seq') == fact.seq
    and redis.call('HGET', key, 'position') == tostring(position - 1) then return false end
  local before = redis.call('HGET', key, 'stem')
  redis.call('PERSIST', key)
  write_hash(key, request.fact_id, fact, 'stem', stem, 'position', position - 1, 'seq', fact.seq)
  count_language(stem, before)
  return true
end

local function passages_without_vector()
  local without = 0
  for position = 0, #request.passages - 1 do
    local key = passage_key(request.fact_id, fact.revision, position)
    local length = redis.call('HSTRLEN', key, 'vector')
    if length ~= 0 and length ~= request.vector_bytes then redis.call('HDEL', key, 'vector') end
    if length ~= request.vector_bytes then without = without + 1 end
  end
  return without
end

local function await_vectors()
  redis.call('HSET', KEYS[1], 'indexed', '0')
  forget_attempts(request.fact_id)
  redis.call('ZADD', root .. 'pending', request.due, request.fact_id)
  redis.call('ZADD', root .. 'inserts', tonumber(request.now) + LATEST_INSERT_MS, request.fact_id .. ':' .. fact.revision)
end

-- The server indexes what is written to anew, vectors too, and serves nobody meanwhile.
local function write_wrong_ones(write, parts, left)
  for position, part in ipairs(parts) do
    if left == 0 then return 0 end
    if write(position, part) then left = left - 1 end
  end
  return left
end

local function mended()
  local left = write_wrong_ones(write_passage, request.passages, request.most)
  left = write_wrong_ones(write_section, request.sections, left)
  if left == 0 then
    note_change(request.fact_id)
    return {'more'}
  end
  local changed = left < request.most
  note_languages(request.fact_id, fact)
  if tonumber(fact.sections) ~= #request.sections then
    uncount_sections(request.fact_id, fact, #request.sections)
    for position = #request.sections, tonumber(fact.sections) - 1 do
      redis.call('DEL', section_key(request.fact_id, fact.revision, position))
    end
    redis.call('HSET', KEYS[1], 'sections', #request.sections)
    changed = true
  end
  local without = passages_without_vector()
  if without > 0 and fact.indexed == '1' then
    await_vectors()
    changed = true
  end
  if not changed then return {'same'} end
  note_change(request.fact_id)
  return {'written'}
end

local function switched()
  remove_parts(request.fact_id, fact)
  expect_late_vectors(request.fact_id, fact)
  fact.revision = request.revision
  fact.passages = #request.passages
  fact.sections = #request.sections
  write_parts(request.fact_id, fact)
  redis.call('HSET', KEYS[1], 'revision', fact.revision, 'passages', fact.passages, 'sections', fact.sections)
  await_vectors()
  note_change(request.fact_id)
  return {'switched', fact.revision}
end

local foreign = foreign_key(part_keys(request.fact_id, fact))
if foreign then return {'blocked', foreign} end
if is_same_cut() then return mended() end
return switched()
