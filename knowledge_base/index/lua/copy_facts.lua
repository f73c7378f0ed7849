-- Copies facts' parts from the live generation to the one that is being built.
--
-- KEYS[1]  the hash of the rebuild
-- ARGV[1]  request: root, token, lease (ms), with_vectors, vector_bytes, most (parts at once), facts: a list of
--          {id, place, revision, stamp}: where to go on in a fact of several calls, 0, "" and "" for a new one
-- Reply    {"lost"} | {"copied", number of facts that are done, ids with a part missing as JSON, ids and revisions that
--          wait for vectors as JSON, place, revision, stamp of the one that is not done}
--
-- What is done is taken off the record of changes, unless it was changed once more since its first part was copied.

renew()
local left = request.most
local missing, copied = {}, {}
local done = 0
for _, item in ipairs(request.facts) do
  local fact_id, place, revision, stamp = item[1], item[2], item[3], item[4]
  if place == 0 then stamp = redis.call('ZSCORE', changed, fact_id) or '' end
  local stopped, current, parts, lacks = copy_fact(fact_id, place, revision, left)
  if place > 0 and current ~= revision then stamp = redis.call('ZSCORE', changed, fact_id) or '' end
  if lacks then missing[#missing + 1] = fact_id end
  if stopped then
    return {'copied', done, cjson.encode(missing), cjson.encode(copied), stopped, current, stamp}
  end
  if request.with_vectors or current == '' then
    if stamp ~= '' and redis.call('ZSCORE', changed, fact_id) == stamp then redis.call('ZREM', changed, fact_id) end
  else
    copied[#copied + 1] = {fact_id, current, stamp}
  end
  done = done + 1
  left = left - parts
  if left <= 0 then break end
end
return {'copied', done, cjson.encode(missing), cjson.encode(copied), 0, '', ''}
