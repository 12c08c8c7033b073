// What many write in place of a gate: an application that nginx asks by auth_request, and that asks Redis, on connections that stay open.
// node answer.js FOLDER SOCKET REDIS_SOCKET; the packages are in FOLDER (script/bench installs them).
'use strict';
const fs = require('fs');
const http = require('http');
const path = require('path');

const [folder, socket, redisSocket] = process.argv.slice(2);
const { createClient } = require(path.join(folder, 'node_modules/@redis/client'));
const redis = createClient({ socket: { path: redisSocket } });

// The same facts and the same rules as in scripts.lua. Commands of one turn go to Redis together.
async function statusFor(account) {
    if (!account) return 401;
    const [facts, used] = await Promise.all([redis.get(`account:${account}`), redis.incr(`used:${account}`)]);
    if (facts === null) return 403;
    const [limit, state, , ...features] = facts.split(' ');
    if (state !== 'active') return 402;
    if (!features.includes('export')) return 403;
    return used > Number(limit) ? 402 : 204;
}

const server = http.createServer((request, response) => {
    statusFor(request.headers['x-account']).then(
        (status) => response.writeHead(status).end(),
        (error) => {
            console.error(error);
            response.writeHead(500).end();
        },
    );
});
server.keepAliveTimeout = 0;
redis.on('error', (error) => console.error(error));
redis.connect().then(() => server.listen(socket, () => fs.chmodSync(socket, 0o777)));
