-- Taking holds off: what happens to held money when a hold is settled, released, replaced or expires: core/holding.py.
-- needs: applying, rolling

local holding = {}

function holding.change_held(account, amount)
    account.held = numbers.add(account.held, amount)
    if account.dropped and account.held == 0 then
        work.drop(account)
    else
        work.stage(account)
    end
end

function holding.hold_on_legs(hold, sign)
    for _, leg in ipairs(hold.legs) do
        local account = work.leg(hold, leg)
        if account then
            holding.change_held(account, sign * hold.amounts[UNITS[leg[4]]])
        end
    end
end

function holding.changed(amounts, other, sign)
    return {amounts[1] + sign * other[1], amounts[2] + sign * other[2], amounts[3] + sign * other[3]}
end

-- The open hold that others may be nested under; a nested hold lends nothing itself.
function holding.lending_parent(id)
    local parent = id and id ~= '' and work.hold(id)
    return parent and parent.state == 'open' and not parent.parent and parent
end

-- Stages an open hold and puts its money on what is held, or on what its parent has lent.
function holding.put_on(hold)
    work.put_hold(hold)
    local parent = holding.lending_parent(hold.parent)
    if parent then
        parent.lent = holding.changed(parent.lent, hold.amounts, 1)
        work.put_hold(parent)
    else
        holding.hold_on_legs(hold, 1)
    end
end

-- Takes an open hold's money off what is held. The caller stages the hold's new state.
function holding.take_off(hold)
    local parent = holding.lending_parent(hold.parent)
    if hold.lent[1] ~= 0 or hold.lent[2] ~= 0 or hold.lent[3] ~= 0 then
        holding.free_children(hold)
    end
    if parent then
        parent.lent = holding.changed(parent.lent, hold.amounts, -1)
        work.put_hold(parent)
    else
        holding.hold_on_legs(hold, -1)
    end
end

-- Expires a few due holds in passing.
function holding.expire_few(spare)
    local ids = work.due(DUE_BATCH)
    return #ids > 0 and holding.expire_all(ids, spare) or 0
end

