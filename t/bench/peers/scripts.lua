-- What many write in place of a gate: a script in nginx that looks at the account's state, a feature and a quota, with facts from Redis
-- at each request, or from a shared dictionary that is filled from Redis once. Loaded by the host of Billing::Bench::Peers.
-- Only what the comparison needs, and in the form that costs least: no change ever comes, no failure gives a unit back, no month ends.
local peers = {}

local find, sub, tonumber = string.find, string.sub, tonumber
local tcp, var, exit = ngx.socket.tcp, ngx.var, ngx.exit
local accounts, used = ngx.shared.accounts, ngx.shared.used

-- One round trip on a connection that stays open. The facts are text: a limit of twelve digits, the state, the plan, features.
local function ask(address, account)
    local socket = tcp()
    assert(socket:connect(address))
    local facts_key, used_key = "account:" .. account, "used:" .. account
    assert(socket:send({
        "*2\r\n$3\r\nGET\r\n$", #facts_key, "\r\n", facts_key, "\r\n*2\r\n$4\r\nINCR\r\n$", #used_key, "\r\n", used_key, "\r\n",
    }))
    local length = tonumber(sub(assert(socket:receive("*l")), 2))
    local facts = length >= 0 and sub(assert(socket:receive(length + 2)), 1, -3) or nil
    local count = tonumber(sub(assert(socket:receive("*l")), 2))
    assert(socket:setkeepalive(600000, 512))
    return facts, count
end

local function judge(facts, count)
    if not facts then return exit(403) end
    if not find(facts, " active ", 13, true) then return exit(402) end
    if not find(facts, " export", 13, true) then return exit(403) end
    if count > tonumber(sub(facts, 1, 12)) then return exit(402) end
end

function peers.redis(address)
    local account = var.http_x_account
    if not account then return exit(401) end
    return judge(ask(address, account))
end

function peers.dictionary(address)
    local account = var.http_x_account
    if not account then return exit(401) end
    local facts = accounts:get(account)
    if not facts then
        facts = ask(address, account)
        if facts then assert(accounts:safe_set(account, facts)) end
    end
    return judge(facts, assert(used:incr(account, 1, 0)))
end

return peers
