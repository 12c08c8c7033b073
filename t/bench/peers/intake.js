// What many write to take Stripe's events: verify, store, answer; one of three kinds, chosen by name. Of npm's packages each is used as
// its own documentation says. All are durable before the 200.
// node intake.js FOLDER KIND PORT SECRET POSTGRES REDIS_SOCKET; the packages are in FOLDER (script/bench installs them).
'use strict';
const { createRequire } = require('module');
const path = require('path');

const [folder, kind, port, secret, postgres, redisSocket] = process.argv.slice(2);
const installed = createRequire(path.join(folder, 'package.json'));
const poolConfig = { connectionString: postgres, max: 16, idleTimeoutMillis: 0 };

const insert = {
    name: 'insert-event',
    text: `INSERT INTO peer.events (id, type, api_version, livemode, created, payload)
        VALUES ($1, $2, $3, $4, to_timestamp($5), $6) ON CONFLICT (id) DO NOTHING`,
};

// Verify and store; true when it is new.
function storing() {
    const Stripe = installed('stripe');
    const { webhooks } = new Stripe('sk_test_none');
    const pool = new (installed('pg').Pool)(poolConfig);
    return async (body, signature) => {
        const event = webhooks.constructEvent(body, signature, secret);
        const values = [event.id, event.type, event.api_version, event.livemode, event.created, body];
        const { rowCount } = await pool.query({ ...insert, values });
        return { event, fresh: rowCount === 1 };
    };
}

const kinds = {
    fastify: storing,
    // The event's work is handed to a queue in Redis.
    bullmq() {
        const { Queue } = installed('bullmq');
        const queue = new Queue('events', { connection: { path: redisSocket } });
        const store = storing();
        return async (body, signature) => {
            const { event, fresh } = await store(body, signature);
            if (fresh) await queue.add(event.type, { id: event.id }, { jobId: event.id });
        };
    },
    // It trusts what the event says and asks Stripe for nothing.
    async sync() {
        const { StripeSync, runMigrations } = installed('@supabase/stripe-sync-engine');
        await runMigrations({ databaseUrl: postgres, schema: 'stripe' });
        const sync = new StripeSync({ poolConfig, stripeSecretKey: 'sk_test_none', stripeWebhookSecret: secret, backfillRelatedEntities: false });
        return (body, signature) => sync.processWebhook(body, signature);
    },
};

async function main() {
    const take = await kinds[kind]();
    const app = installed('fastify')({ keepAliveTimeout: 0 });
    app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => done(null, body));
    app.post('/webhook', async (request) => {
        await take(request.body, request.headers['stripe-signature']);
        return { received: true };
    });
    app.setErrorHandler((error, request, reply) => {
        console.error(error);
        reply.code(error.type === 'StripeSignatureVerificationError' ? 400 : 500).send({ error: error.message });
    });
    await app.listen({ host: '127.0.0.1', port: Number(port) });
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
