-- What few commands do with rows.
-- needs: rows
-- lazily: work

-- Forgets everything that was staged.
function work.restart()
    work.subjects, work.holds, work.recorded, work.changed, work.totals = {}, {}, {}, {}, {}
    work.rows_made = 0
end

-- Whether one text comes before another in the order of bytes. (Lua's < follows the server's locale.)
function work.before(one, other)
    for place = 1, math.min(#one, #other) do
        local mine, theirs = string.byte(one, place), string.byte(other, place)
        if mine ~= theirs then
            return mine < theirs
        end
    end
    return #one < #other
end

-- Whether the account, or what names one, comes before another of the same subject.
function work.account_before(one, other)
    if one.model ~= other.model then
        return work.before(one.model, other.model)
    elseif one.window ~= other.window then
        return work.before(one.window, other.window)
    end
    return work.before(one.unit, other.unit)
end

-- A subject's accounts for a reply: {id, account, ...}.
function work.listed(subject)
    local listed = {subject.id}
    for _, a in ipairs(subject.accounts) do
        local models = {}
        for model, amount in pairs(a.models) do
            models[#models + 1], models[#models + 2] = model, amount
        end
        listed[#listed + 1] = {a.model, a.window, a.unit, a.id, a.created_at, a.start, a.stop, a.pinned, a.limit, a.spent,
            a.held, a.epoch, models, a.blocked, a.raised_by, a.raised_until, a.carry_over, a.carried, a.dropped, a.alerted,
            a.alert_limit}
    end
    return listed
end

function work.drop(account)
    local accounts = account.subject.accounts
    for place, other in ipairs(accounts) do
        if other == account then
            table.remove(accounts, place)
            break
        end
    end
    account.subject.changed = true
end

function work.all_loaded(ids)
    local missing = {}
    for _, id in ipairs(ids) do
        if work.holds[id] == nil then
            missing[#missing + 1] = id
        end
    end
    for first = 1, #missing, 1000 do
        local some = {unpack(missing, first, math.min(#missing, first + 999))}
        for place, packed in ipairs(call('HMGET', ROOT .. ':h', unpack(some))) do
            work.remember(some[place], packed)
        end
    end
    return ids
end

-- The ids of every open hold, in their order.
function work.open_holds()
    local ids = work.all_loaded(call('ZRANGE', ROOT .. ':o', 0, -1))
    table.sort(ids, work.before)
    return ids
end

-- Totals.

local function total_of(scope, id)
    local name = work.name(scope, id)
    local total = work.totals[name]
    if not total then
        total = {name = name, recorded = {}, added = {}, order = {}}
        work.totals[name] = total
    end
    return total
end

local function recorded_total(total, field)
    local row = total.recorded[field]
    if row == nil then
        local packed = call('HGET', ROOT .. ':u:' .. total.name, field)
        row = packed and cmsgpack.unpack(packed)
        total.recorded[field] = row
    end
    return row
end

-- How many holds that were charged their floor a row of totals counts, as this command sees it.
function work.unsettled(scope, id, day, model)
    local total, field = total_of(scope, id), day .. ':' .. model
    local recorded, added = recorded_total(total, field), total.added[field]
    return numbers.add(recorded and recorded[6] or 0, added and added[6] or 0)
end

function work.add_total(scope, id, day, model, row)
    local total, field = total_of(scope, id), day .. ':' .. model
    local added = total.added[field]
    if not added then
        added = {0, 0, 0, 0, 0, 0, day = day}
        total.added[field] = added
        total.order[#total.order + 1] = field
    end
    for place = 1, 6 do
        added[place] = numbers.add(added[place], row[place])
    end
end

function work.save_totals()
    for name, total in pairs(work.totals) do
        for _, field in ipairs(total.order) do
            local row, added = recorded_total(total, field), total.added[field]
            if row then
                for place = 1, 6 do
                    row[place] = numbers.add(row[place], added[place])
                end
                call('HSET', ROOT .. ':u:' .. name, field, cmsgpack.pack(row))
            else
                call('HSET', ROOT .. ':u:' .. name, field, cmsgpack.pack({unpack(added, 1, 6)}))
                call('ZADD', ROOT .. ':t', 0, name)
                if added.day > 0 then
                    call('ZADD', ROOT .. ':d', 'LT', added.day, name)
                end
            end
        end
    end
end
