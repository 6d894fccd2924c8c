-- Settle: core/settling.py.
-- needs: closing
--
-- KEYS[1]  the project's root
-- ARGV[1]  JSON: [hold, now, subjects [[scope, id], ...], order of the subjects [place, ...], models, cost, model, input tokens,
--          output tokens, calls, parent or false, alias marks, mark that forbids or false, thresholds in order, at or false, rolls]
-- ARGV[2]  JSON: [default, ...]
-- Replies  1 (settled, nothing crossed); {"Settled", {scope, id, model, window, unit, start, limit, threshold, spent}, ...};
--          {"AlreadyCharged"}; {"RollNeeded", now, due, ...}

local id, now, subjects, order, models, cost, model, input, output, calls, parent_id, aliases, unless, thresholds, at, rolls =
    unpack(cjson.decode(ARGV[1]))
local defaults = cjson.decode(ARGV[2])

local function done(reply)
    work.put_hold(work.new_hold(id, 'settled', work.now, {reply = reply ~= 1 and reply}))
    holding.expire_few()
    work.save()
    return reply
end

-- What is left of a charge when `paid` has been paid of it, unit by unit.
local function rest_of(charge, paid)
    local rest = {}
    for unit = 1, 3 do
        rest[unit] = numbers.sub(charge[unit], paid[unit])
        if tonumber(rest[unit]) < 0 then
            rest[unit] = 0
        end
    end
    return rest
end

local function charge_all(hold, applies)
    local charge, paid = {cost, calls, numbers.add(input, output)}, {}
    if hold and hold.state == 'open' then
        holding.take_off(hold)
    elseif hold and hold.state == 'expired' then
        paid = holding.refund_floor(hold)
    elseif not hold and parent_id then
        holding.draw_from_parent(parent_id, charge)
    end
    for _, entry in ipairs(applies) do
        local account = entry.account
        -- What an earlier window has paid of this attempt, as the floor of its expired hold, it has paid.
        local rest = paid[account.id] and rest_of(charge, paid[account.id]) or charge
        applying.charge(account, rest[UNITS[account.unit]], model)
        work.stage(account)
    end
    local day = math.floor(math.min(at or work.now, work.now) / DAY)
    for _, subject in ipairs(subjects) do
        work.add_total(subject[1], subject[2], day, model, {cost, calls, input, output, 0, 0})
    end
end

-- The thresholds that have been passed and not been reported, in this window and for this limit.
local function crossings(applies)
    local reply = {'Settled'}
    for _, entry in ipairs(applies) do
        local account, limit = entry.account, applying.limit(entry.account, entry.default)
        if limit then
            local reported = account.alert_limit == limit and account.alerted or 0
            for _, threshold in ipairs(thresholds) do
                if threshold > reported and account.spent ~= 0 and numbers.reaches(account.spent, threshold, limit) then
                    reply[#reply + 1] = {account.subject.scope, account.subject.id, account.model, account.window,
                        account.unit, account.start, limit, threshold, account.spent}
                    account.alerted, account.alert_limit = threshold, limit
                end
            end
        end
    end
    return #reply > 1 and reply or 1
end

work.begin(now)
local hold = work.hold(id)
if hold and hold.state == 'settled' then
    return hold.reply or 1
end
if unless and work.hold(unless) then
    holding.give_back(id)
    return done({'AlreadyCharged'})
end
local applies, due = applying.find(subjects, order, models, defaults, rolls, hold, 'S:' .. id)
if #due > 0 then
    return applying.roll_needed(due)
end
charge_all(hold, applies)
for _, alias in ipairs(aliases) do
    work.put_hold(work.new_hold(alias, 'alias', work.now))
end
return done(#thresholds > 0 and crossings(applies) or 1)
