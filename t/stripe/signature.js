// Asks npm stripe about signatures: node signature.js FOLDER < {"verify": [{body, header, secret}], "sign": [{body, secret, timestamp}]}
// Prints {"verify": [true | message], "sign": [header]}.
'use strict';
const path = require('path');
const fs = require('fs');

const Stripe = require(path.join(process.argv[2], 'node_modules/stripe'));
const { webhooks } = new Stripe('sk_test_none');
const asked = JSON.parse(fs.readFileSync(0, 'utf8'));

function verified({ body, header, secret }) {
    try {
        return webhooks.constructEvent(Buffer.from(body, 'base64'), header, secret).object === 'event';
    } catch (error) {
        return error.message.split('\n')[0];
    }
}

function sign({ body, secret, timestamp }) {
    return webhooks.generateTestHeaderString({ payload: Buffer.from(body, 'base64').toString('utf8'), secret, timestamp });
}

console.log(JSON.stringify({ verify: asked.verify.map(verified), sign: asked.sign.map(sign) }));
