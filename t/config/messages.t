# A mistake in the configuration is refused at `nginx -t`, and the message says what to write instead, with file and line. No network
# is touched by it: PostgreSQL and Redis are named here and do not exist. O3, S8, O6 (secrets from files and the environment).
use v5.36;
use Billing::Nginx ();
use Billing::Process qw(new_directory root slurp);
use Billing::Test;
use Billing::Token;
use JSON::PP ();

my $directory = new_directory();
my $catalog = root() . '/conf/catalog.json';
my $host = Billing::Nginx->new(start => 0, conf => <<'END', vars => {HTTP => '', SERVER => ''});
%%GLOBALS%%
events { }
http {
    %%HTTP_GLOBALS%%
%%HTTP%%
    server {
        listen 127.0.0.1:%%PORT%%;
%%SERVER%%
    }
}
END

Billing::Nginx::write_file("$directory/keys.json", Billing::Token::jwks(Billing::Token->new('ES256')));
Billing::Nginx::write_file("$directory/weak.json", Billing::Token::jwks(Billing::Token->new('RS256', bits => 1024)));
Billing::Nginx::write_file("$directory/public.pem", Billing::Token->new('ES256')->public_pem);
Billing::Nginx::write_file("$directory/none.json", "{}\n");

my $zone = 'billing_zone main 4m;';
my $postgres = q{billing_postgres "host=127.0.0.1 port=1 dbname=nowhere user=u password=canary-7f3a";};
my $whole = "$zone $postgres billing_redis 127.0.0.1:1; billing_catalog $catalog;";
my $gate = 'auth_basic app; auth_basic_user_file users; billing on; billing_account $remote_user;';

# [what, in http, in server, the message; the line is where the directive stands]
my @mistakes = (
    ['zone too small', 'billing_zone main 64k;', '', qr/zone "main" is too small; write at least 2m.* in .*:\d+/],
    ['zone size', 'billing_zone main lots;', '', qr/"billing_zone": invalid size "lots"; write a number with k or m, as 16m in .*:\d+/],
    ['zone twice', "$zone $zone", '', qr/"billing_zone" directive is duplicate in .*:\d+/],
    ['postgres: nonsense', 'billing_postgres "nonsense";', '', qr/"billing_postgres": .* in .*:\d+/],
    ['postgres: second word', 'billing_postgres "host=127.0.0.1" slow;', '', qr/the second word must be listen=DSN in .*:\d+/],
    ['postgres: missing variable', 'billing_postgres env:BILLING_NO_SUCH;', '', qr/the environment has no BILLING_NO_SUCH; set it where nginx is started/],
    ['postgres: missing file', 'billing_postgres file:/nowhere/dsn;', '', qr{cannot read /nowhere/dsn}],
    ['redis: TLS', 'billing_redis rediss://127.0.0.1:6379;', '', qr/"billing_redis": .*TLS/],
    ['redis: nonsense', 'billing_redis host:port:more;', '', qr/"billing_redis": .* in .*:\d+/],
    ['catalog: missing', 'billing_catalog nowhere.json;', '', qr{nowhere\.json: cannot be opened for reading in .*:\d+}],
    ['mode', '', 'billing maybe;', qr/"billing": invalid mode "maybe"; write on, off or observe in .*:\d+/],
    ['account: constant', '', 'billing_account everybody;', qr/"everybody" names the same account for everybody; write a variable/],
    ['account: a field that is ours', '', 'billing_account $http_x_billing_account;', qr/X-Billing-\.\.\. fields are the gate's own and taken off what clients send; let the account come in a field of another name in .*:\d+/],
    ['account: no such variable', '', 'billing_account $no_such_variable;', qr/unknown "no_such_variable" variable/],
    ['unknown accounts', '', 'billing_unknown_account maybe;', qr/invalid value "maybe"; write create, free or deny in .*:\d+/],
    ['plan: two ranks', '', 'billing_plan >=pro free;', qr/write plan names, or one >=NAME for this plan and all above it in .*:\d+/],
    ['feature: match', '', 'billing_feature a match=some;', qr/invalid "match=some"; write match=all or match=any in .*:\d+/],
    ['feature: none', '', 'billing_feature match=any;', qr/write at least one feature's name in .*:\d+/],
    ['quota: cost 0', '', 'billing_quota requests cost=0;', qr/invalid cost "0"; write a whole number from 1 to 1000000 or a variable in .*:\d+/],
    ['quota: parameter', '', 'billing_quota requests price=2;', qr/unknown parameter "price=2"; write cost=N or cost=\$variable/],
    ['quota: twice', '', 'billing_quota requests; billing_quota requests cost=2;', qr/quota "requests" is here already; write its cost= once/],
    ['quota: parameter again', '', 'billing_quota requests window=;', qr/unknown parameter "window="; write cost=N or cost=\$variable, window=NAME, warn=N%, settle=\$variable and max=N/],
    ['warn: no part', '', 'billing_quota requests warn=80;', qr/invalid "warn=80"; write warn=80%, from 1% to 100%, once for each threshold in .*:\d+/],
    ['warn: too much', '', 'billing_quota requests warn=101%;', qr/invalid "warn=101%"; write warn=80%/],
    ['warn: nothing', '', 'billing_quota requests warn=0%;', qr/invalid "warn=0%"; write warn=80%/],
    ['warn: twice', '', 'billing_quota requests warn=80% warn=90% warn=80%;', qr/"warn=80%" is here already in .*:\d+/],
    ['quota: one window twice', '', 'billing_quota requests window=day; billing_quota requests window=day cost=2;', qr/quota "requests" is here already; write its cost= once/],
    ['rate: hosts', '', 'billing_rate chatbot hosts=0;', qr/invalid "hosts=0"; write hosts=N, the number of hosts that share the traffic evenly in .*:\d+/],
    ['rate: parameter', '', 'billing_rate chatbot burst=5;', qr/invalid "burst=5"; write hosts=N/],
    ['settle: no variable', '', 'billing_quota requests settle=7;', qr/invalid "settle=7"; write a variable once, as settle=\$upstream_http_x_billing_cost in .*:\d+/],
    ['settle: max alone', '', 'billing_quota requests max=7;', qr/"max=" bounds what settle= may report; write settle=\$variable beside it in .*:\d+/],
    ['settle: max', '', 'billing_credits logo 1 settle=$upstream_http_x max=0;', qr/invalid "max=0"; write max=N once, from 1 to 1000000 in .*:\d+/],
    ['entitlements: word', '', 'location /e { billing_account $remote_user; billing_entitlements quotas=requests; }', qr/invalid "quotas=requests"; write quota=NAME \(NAME:WINDOW of a quota with several windows\), preview=FEATURE, or both in .*:\d+/],
    ['entitlements: quota', $whole, 'location /e { billing_account $remote_user; billing_entitlements quota=reqests; }', qr/no quota "reqests" in the catalog \(.*catalog.json has: requests\) in .*:\d+/],
    ['entitlements: feature', $whole, 'location /e { billing_account $remote_user; billing_entitlements preview=chatbox; }', qr/no feature "chatbox" in the catalog \(.* has: .*chatbot.*\) in .*:\d+/],
    ['status: nobody', $whole, 'location /e { billing_status; }', qr/"billing_status" needs to know who asks; write "billing_account \$variable;" beside it in .*:\d+/],
    ['account from: a word', '', 'location /c { billing_account_from user_id; }', qr/"billing_account_from": invalid "user_id"; write body:NAME or query:NAME, or one of each, and perhaps token=file:PATH or certificate in .*:\d+/],
    ['account from: two of a kind', '', 'location /c { billing_account_from body:a body:b; }', qr/"billing_account_from": invalid "body:b"; write body:NAME or query:NAME, or one of each/],
    ['account from: no name', '', 'location /c { billing_account_from query:; }', qr/"billing_account_from": invalid "query:"/],
    ['account from: nowhere', '', 'location /c { billing_account_from certificate; }', qr/"billing_account_from": says not where the account is; write body:NAME or query:NAME in .*:\d+/],
    ['account from: a short token', '', 'location /c { billing_account_from body:a token=canary-7f3a; }', qr/the token is too short to be a secret; write one of at least 20 characters/],
    ['account from: twice', '', 'location /c { billing_account_from body:a; billing_account_from query:a; }', qr/"billing_account_from" directive is duplicate in .*:\d+/],
    ['account from: above a location', '', 'billing_account_from body:a;', qr/"billing_account_from" directive is not allowed here in .*:\d+/],
    ['account from: beside another', $whole, 'location /c { billing_account $remote_user; billing_account_from body:a; billing_upgrade; }', qr/"billing_account" says already who asks here; remove either in .*:\d+/],
    ['account from: the gate', $whole, 'billing_account $remote_user; billing on; location /c { billing_account_from body:a; }', qr/"billing_account_from" is for locations as those of billing_checkout and billing_portal, never for the gate; write "billing_account \$variable;" in .*:\d+/],
    ['account from: settings', $whole, 'location /c { billing_account_from body:a; billing_settings; }', qr/"billing_account_from" is not for billing_settings; remove it, or use billing_account in .*:\d+/],
    ['account from: settings inside', $whole, 'location /c { billing_account_from body:a; location /c/s { billing_settings; } }', qr/"billing_settings" needs to know who asks; write "billing_account \$variable;" beside it in .*:\d+/],
    ['account from: a webhook', $whole, 'location /c { billing_account_from body:a; billing_webhook; }', qr/"billing_account_from" is not for billing_webhook/],
    ['account from: with a live key', "$whole billing_stripe key=sk_live_canary-7f3a;", 'billing_public_url https://a.example; location /c { billing_account_from body:a; billing_checkout; }',
        qr/"billing_account_from" lets whoever reaches this location act for any account, and the key of billing_stripe is a live one; write token=file:PATH or certificate beside it, or in the location "allow ADDRESS;" and "deny all;" in .*:\d+/],
    ['account from: with a live key, and all allowed', "$whole billing_stripe key=sk_live_canary-7f3a;", 'billing_public_url https://a.example; location /c { billing_account_from body:a; allow 10.0.0.0/8; allow all; deny all; billing_portal; }',
        qr/"billing_account_from" lets whoever reaches this location act for any account, and the key/],
    ['account from: with a live key, and some denied', "$whole billing_stripe key=sk_live_canary-7f3a;", 'billing_public_url https://a.example; location /c { billing_account_from body:a; deny 10.0.0.0/8; billing_portal; }',
        qr/"billing_account_from" lets whoever reaches this location act for any account, and the key/],
    ['credits api: nobody', '', 'location /c { billing_credits_api public; }', qr/invalid "public"; write token=file:PATH of a file that holds a secret, or certificate in .*:\d+/],
    ['credits api: short token', '', 'location /c { billing_credits_api token=short; }', qr/the token is too short to be a secret; write one of at least 20 characters/],
    ['idempotency: one for all', '', 'billing_idempotency_key key;', qr/"key" is one key for all requests; write a variable, as \$http_idempotency_key in .*:\d+/],
    ['idempotency: window', '', 'billing_idempotency_key $http_idempotency_key window=31d;', qr/invalid "window=31d"; write a time from 1s to 30d, as window=24h in .*:\d+/],
    ['idempotency: parameter', '', 'billing_idempotency_key $http_idempotency_key keep=1h;', qr/invalid "keep=1h"; write a time from 1s to 30d/],
    ['idempotency: off for a time', '', 'billing_idempotency_key off window=1h;', qr/"off" takes no window in .*:\d+/],
    ['idempotency: twice', '', 'billing_idempotency_key off; billing_idempotency_key off;', qr/is duplicate in .*:\d+/],
    ['paid status', '', 'billing_paid_status 2xx 6xx;', qr/invalid status "6xx"; write 2xx and the like, or statuses as 404; 499 is a client that left in .*:\d+/],
    ['paid status: twice', '', 'billing_paid_status 2xx; billing_paid_status 3xx;', qr/is duplicate in .*:\d+/],
    ['credits: none', '', 'billing_credits logo 0;', qr/invalid number of credits "0"; write a whole number from 1 to 1000000 or a variable in .*:\d+/],
    ['credits: hold', '', 'billing_credits logo 4 hold=1s;', qr/invalid "hold=1s"; write hold=TIME, from 10s to 7d, longer than any request takes, settle=\$variable and max=N in .*:\d+/],
    ['credits: parameter', '', 'billing_credits logo 4 keep=1h;', qr/invalid "keep=1h"; write hold=TIME/],
    ['credits: twice', '', 'billing_credits logo 4; billing_credits logo 2;', qr/credits "logo" are here already in .*:\d+/],
    ['credits: too many', '', join(' ', map { "billing_credits t$_ 1;" } 1 .. 5), qr/more than 4 types of credits on one location in .*:\d+/],
    ['stock: neither', '', 'billing_stock brands take;', qr/invalid "take"; write create or delete in .*:\d+/],
    ['stock: none', '', 'billing_stock brands create 0;', qr/invalid "0"; write how many, from 1 to 1000000, method=METHOD, and beside create hold=TIME, from 10s to 7d, longer than any request takes in .*:\d+/],
    ['stock: hold', '', 'billing_stock brands create hold=1s;', qr/invalid "hold=1s"; write how many/],
    ['stock: hold of a delete', '', 'billing_stock brands delete hold=1h;', qr/invalid "hold=1h"; write how many/],
    ['stock: method', '', 'billing_stock brands delete method=post;', qr/unknown method "post"; write as method=PUT in .*:\d+/],
    ['stock: twice', '', 'billing_stock brands create; billing_stock brands delete method=DELETE method=POST;', qr/stock "brands" has a rule for this method here already in .*:\d+/],
    ['stock: too many', '', join(' ', map { "billing_stock s$_ create;" } 1 .. 5), qr/more than 4 stocks on one location in .*:\d+/],
    ['rate: twice', '', 'billing_rate chatbot; billing_rate chatbot hosts=2;', qr/rate "chatbot" is here already in .*:\d+/],
    ['on_error: half', '', 'billing_on_error stale=1h;', qr/say what happens when nothing is known: write 503 or allow at the end/],
    ['on_error: time', '', 'billing_on_error stale=soon 503;', qr/invalid time "stale=soon"; write as stale=1h/],
    ['read methods', '', 'billing_read_methods GET BREW;', qr/unknown method "BREW"; write those that change nothing, as GET HEAD OPTIONS TRACE in .*:\d+/],
    ['live status', '', 'billing_live_status active cancelled;', qr/unknown status "cancelled"; write Stripe's, as active trialing past_due in .*:\d+/],
    ['check with a key', $whole, 'location = /c { billing on; billing_account $remote_user; billing_idempotency_key $http_idempotency_key; billing_check; }',
        qr/"billing_check" does not see the request that a key stands for; remove billing_idempotency_key in .*:\d+/],
    ['check without a gate', $whole, 'location = /c { billing_check; }', qr/"billing_check" tells the gate's decision; write "billing on;" beside it in .*:\d+/],
    ['codes: reason', '', 'billing_codes hunger=429;', qr/unknown reason in "hunger=429"; known: .*limit/],
    ['codes: an endpoint\'s status', '', 'billing_codes no_customer=200;', qr/invalid "no_customer=200"; write a status from 400 to 599, as limit=429 in .*:\d+/],
    ['codes: known reasons', '', 'billing_codes no_customers=404;', qr/unknown reason in "no_customers=404"; known: .*unavailable, unknown_plan, no_customer, stripe_error in .*:\d+/],
    ['codes: no status', '', 'billing_codes stripe_error;', qr/invalid "stripe_error"; write a status from 400 to 599, as limit=429 in .*:\d+/],
    ['pass headers', '', 'billing_pass_headers yes;', qr/"billing_pass_headers": invalid value "yes"; write on or off in .*:\d+/],
    ['strict path', '', 'billing_strict_path yes;', qr/"billing_strict_path": invalid value "yes"; write on or off in .*:\d+/],
    ['cache hits', '', 'billing_cache_hits off;', qr/"billing_cache_hits": invalid value "off"; write free or charged in .*:\d+/],
    ['cache hits: twice', '', 'billing_cache_hits free; billing_cache_hits free;', qr/"billing_cache_hits" directive is duplicate in .*:\d+/],
    ['recheck: time', '', 'billing_recheck soon;', qr/"billing_recheck": invalid time "soon"; write a time from 1s, as 60s, or off in .*:\d+/],
    ['recheck: too often', '', 'billing_recheck 500ms;', qr/"billing_recheck": invalid time "500ms"; write a time from 1s, as 60s, or off in .*:\d+/],
    ['recheck: twice', '', 'billing_recheck 5s; billing_recheck off;', qr/"billing_recheck" directive is duplicate in .*:\d+/],
    ['codes: status', '', 'billing_codes limit=200;', qr/invalid "limit=200"; write a status from 400 to 599, as limit=429/],
    ['gate without zone', "$postgres billing_catalog $catalog;", $gate, qr/"billing on" needs shared memory; write "billing_zone main 16m;" in http in .*:\d+/],
    ['gate without database', "$zone billing_catalog $catalog;", $gate, qr/"billing on" needs the database; write "billing_postgres .*;" in http in .*:\d+/],
    ['gate without catalog', "$zone $postgres", $gate, qr/"billing on" needs the catalog; write "billing_catalog catalog\.json;" in http in .*:\d+/],
    ['gate without account', $whole, 'billing on;', qr/"billing on" needs to know who pays; write "billing_account \$variable;" beside it in .*:\d+/],
    ['stripe: no key', 'billing_stripe api=https://api.stripe.com;', '', qr/"billing_stripe": key= is no secret key of Stripe .*; write key=file:PATH of the file that holds one in .*:\d+/],
    ['stripe: a publishable key', 'billing_stripe key=pk_test_canary-7f3a;', '', qr/"billing_stripe": key= is no secret key of Stripe/],
    ['stripe: key in no file', 'billing_stripe key=file:/nowhere/key;', '', qr{cannot read /nowhere/key; nginx's master must be able to open it}],
    ['stripe: key in no variable', 'billing_stripe key=env:BILLING_NO_SUCH;', '', qr/the environment has no BILLING_NO_SUCH/],
    ['stripe: version', 'billing_stripe key=sk_test_canary-7f3a version=latest;', '', qr/invalid version "latest"; write as version=2026-02-25\.clover in .*:\d+/],
    ['stripe: address', 'billing_stripe key=sk_test_canary-7f3a api=stripe;', '', qr{invalid address; write as api=https://api\.stripe\.com in .*:\d+}],
    ['stripe: a live key in the clear', 'billing_stripe key=sk_live_canary-7f3a api=http://127.0.0.1:1;', '', qr/a live key is only sent over https; correct api= in .*:\d+/],
    ['stripe: parameter', 'billing_stripe key=sk_test_canary-7f3a secret=canary-7f3a;', '', qr/unknown parameter; write key=file:PATH, and perhaps api=URL and version=VERSION in .*:\d+/],
    ['payment_failed: policy', 'billing_payment_failed forgive;', '', qr/invalid "forgive"; write grace or maintenance in .*:\d+/],
    ['keep_payloads: no time', 'billing_keep_payloads long;', '', qr/invalid time "long"; write 1d to 10y in .*:\d+/],
    ['keep_payloads: too short', 'billing_keep_payloads 23h;', '', qr/invalid time "23h"; write 1d to 10y/],
    ['keep_payloads: too long', 'billing_keep_payloads 11y;', '', qr/invalid time "11y"; write 1d to 10y/],
    ['keep_payloads: twice', 'billing_keep_payloads 2d; billing_keep_payloads 2d;', '', qr/"billing_keep_payloads" directive is duplicate/],
    ['payment_failed: time', 'billing_payment_failed grace soon;', '', qr/invalid time "soon"; write as 7d in .*:\d+/],
    ['payment_disputed: policy', 'billing_payment_disputed forgive;', '', qr/"billing_payment_disputed": invalid value "forgive"; write maintenance or notify in .*:\d+/],
    ['jobs: word', 'billing_jobs maybe;', '', qr/"billing_jobs": invalid value "maybe"; write on or off in .*:\d+/],
    ['jobs off on the only host', "$zone $postgres billing_catalog $catalog; billing_jobs off;", $gate, qr/"billing_jobs off" leaves the work to other hosts, which tell of it through Redis; write "billing_redis ADDRESS;" in http in .*:\d+/],
    ['webhook secret', '', 'billing_webhook_secret whsec_1 canary-7f3a;', qr/word 2 is no signing secret \(whsec_\.\.\.\); write file:PATH of the file that holds one in .*:\d+/],
    ['public url: a path', '', 'billing_public_url /app;', qr{invalid "/app"; write scheme and host, as https://app\.example\.com in .*:\d+}],
    ['public url: a user', '', 'billing_public_url https://ok@evil.example;', qr/write scheme and host/],
    ['success url', '', 'billing_success_url javascript:alert;', qr/invalid "javascript:alert"; write a whole address, or a path below billing_public_url in .*:\d+/],
    ['checkout: word', $whole, 'location /c { billing_checkout quickly; }', qr/"billing_checkout": invalid "quickly"; write redirect, plan=NAME, packs=N-M, seats=N-M, or nothing in .*:\d+/],
    ['checkout: quantities', $whole, 'location /c { billing_checkout packs=10; }', qr/invalid "packs=10"; write the least and the most, from 1 to 1000, as 1-50 in .*:\d+/],
    ['checkout: none', $whole, 'location /c { billing_checkout seats=0-5; }', qr/invalid "seats=0-5"; write the least and the most/],
    ['checkout: the other way round', $whole, 'location /c { billing_checkout seats=5-2; }', qr/invalid "seats=5-2"; write the least and the most/],
    ['checkout: too many', $whole, 'location /c { billing_checkout packs=1-1001; }', qr/invalid "packs=1-1001"; write the least and the most/],
    ['webhook: word', $whole, 'location /w { billing_webhook quickly; }', qr/"billing_webhook": invalid "quickly"; write tolerance=TIME, or nothing in .*:\d+/],
    ['webhook: no time', $whole, 'location /w { billing_webhook tolerance=long; }', qr/invalid tolerance "long"; write 10s to 1h, as tolerance=300s in .*:\d+/],
    ['webhook: a short time', $whole, 'location /w { billing_webhook tolerance=9s; }', qr/invalid tolerance "9s"; write 10s to 1h/],
    ['webhook: a long time', $whole, 'location /w { billing_webhook tolerance=3601s; }', qr/invalid tolerance "3601s"; write 10s to 1h/],
    ['webhook: no time limit', $whole, 'location /w { billing_webhook tolerance=0; }', qr/invalid tolerance "0"; write 10s to 1h/],
    ['portal: word', $whole, 'location /c { billing_portal quickly; }', qr/"billing_portal": invalid "quickly"; write redirect, create, configuration=SETTING, return_url=SETTING, or nothing in .*:\d+/],
    ['portal: configuration', $whole, 'location /c { billing_portal configuration=mine; }', qr/invalid configuration "mine"; write as configuration=bpc_1Nd3f\.\.\. in .*:\d+/],
    ['portal: page', $whole, 'location /c { billing_portal return_url=evil; }', qr{invalid "evil"; write a whole address, or a path below billing_public_url in .*:\d+}],
    ['return urls: a path', '', 'billing_return_urls https://a.example /back;', qr{"billing_return_urls": invalid "/back"; write scheme and host, as https://shop\.example\.com, and perhaps a path in .*:\d+}],
    ['return urls: a query', '', 'billing_return_urls https://a.example/?x=1;', qr/write scheme and host/],
    ['checkout session: parameter', '', 'billing_checkout_session payment_method_types=card;', qr/"billing_checkout_session": unknown parameter "payment_method_types"; known: allow_promotion_codes, .*, locale in .*:\d+/],
    ['checkout session: switch', '', 'billing_checkout_session tax_id_collection=yes;', qr/invalid "tax_id_collection=yes"; write tax_id_collection=on or off in .*:\d+/],
    ['checkout session: address', '', 'billing_checkout_session billing_address_collection=on;', qr/write billing_address_collection=required or auto in .*:\d+/],
    ['checkout session: trial', '', 'billing_checkout_session trial_period_days=2w;', qr/invalid "trial_period_days=2w"; write trial_period_days=N with N from 0 to 730 in .*:\d+/],
    ['checkout session: a long trial', '', 'billing_checkout_session trial_period_days=731;', qr/with N from 0 to 730/],
    ['checkout session: locale', '', 'billing_checkout_session locale=de_DE;', qr/invalid "locale=de_DE"; write locale=auto, or a language as locale=de in .*:\d+/],
    ['customer', '', 'billing_customer mail=$remote_user;', qr/"billing_customer": invalid "mail=\$remote_user"; write email=\$variable or name=\$variable in .*:\d+/],
    ['role: the same for all', '', 'billing_role owner;', qr/"billing_role": "owner" is the same for everybody; write a variable in .*:\d+/],
    ['subject: the same for all', '', 'billing_subject ann owner;', qr/"billing_subject": "ann" is the same for everybody; write a variable in .*:\d+/],
    ['upgrade without development', $whole, 'billing_account $remote_user; location /u { billing_upgrade; }', qr/"billing_upgrade" gives plans away; write "billing_dev_mode on;" in http where that is meant, or use billing_checkout in .*:\d+/], # C11
    ['upgrade beside a live key', "$whole billing_dev_mode on; billing_stripe key=sk_live_canary-7f3a;", 'billing_account $remote_user; location /u { billing_upgrade; }', qr/"billing_upgrade" gives plans away, and the key of billing_stripe is a live one; remove either in .*:\d+/],
    ['upgrade for nobody', "$whole billing_dev_mode on;", 'location /u { billing_upgrade; }', qr/"billing_upgrade" needs to know who asks; write "billing_account \$variable;" beside it in .*:\d+/],
    ['dev mode', 'billing_dev_mode yes;', '', qr/"billing_dev_mode": invalid value "yes"; write on or off in .*:\d+/],
    ['metadata: parameter', 'billing_metadata price=x;', '', qr/"billing_metadata": unknown parameter "price=x"; known: account, plan, credit, quantity in .*:\d+/],
    ['metadata: name', 'billing_metadata account=user[id];', '', qr/invalid name "user\[id\]"; write 1-40 of A-Z a-z 0-9 _ - in .*:\d+/],
    ['metadata: twice the same', 'billing_metadata account=plan;', '', qr/two names are the same, or one is price or quantity, which are ours; write others in .*:\d+/],
    ['checkout beside a portal', $whole, 'location /c { billing_checkout; billing_portal; }', qr/"billing_portal": this location answers for something else already in .*:\d+/],
    ['checkout for nobody', $whole, 'billing_public_url https://a.example; location /c { billing_checkout; }', qr/"billing_checkout" needs to know who asks; write "billing_account \$variable;" beside it in .*:\d+/],
    ['checkout that leads nowhere', "$whole billing_stripe key=sk_test_canary-7f3a;", 'billing_account $remote_user; location /c { billing_checkout; }', qr{"billing_checkout" needs to know where your pages are; write "billing_public_url https://app\.example\.com;" in .*:\d+}],
    ['checkout without database', "$zone billing_catalog $catalog;", 'location /c { billing_checkout; }', qr/this location needs the database; write .* in .*:\d+/],
    ['metrics without database', "$zone billing_catalog $catalog;", 'location /m { billing_metrics; }', qr/this location needs the database; write .* in .*:\d+/],
    ['settings: a word', $whole, 'location /m { billing_settings overage; }', qr/invalid number of arguments in "billing_settings" directive in .*:\d+/],
    ['settings: of nobody', $whole, 'location /m { billing_settings; }', qr/"billing_settings" needs to know who asks; write "billing_account \$variable;" beside it in .*:\d+/],
    ['settings beside a portal', "$whole", 'location /m { billing_portal; billing_settings; }', qr/"billing_settings": this location answers for something else already in .*:\d+/],
    ['metrics: a word', $whole, 'location /m { billing_metrics json; }', qr/invalid number of arguments in "billing_metrics" directive in .*:\d+/],
    ['checkout beside a check', $whole, "$gate location /c { billing_check; billing_checkout; }", qr/"billing_checkout": this location answers for something else already in .*:\d+/],
    ['check behind proxy_pass', $whole, "$gate location /c { proxy_pass http://127.0.0.1:1; billing_check; }", qr/"billing_check": this location answers for something else already in .*:\d+/],
    ['check before proxy_pass', $whole, "$gate location /c { billing_check; proxy_pass http://127.0.0.1:1; }", qr/this location answers by itself; remove proxy_pass and the like from it in .*:\d+/],
    ['metrics before proxy_pass', $whole, 'location /m { billing_metrics; proxy_pass http://127.0.0.1:1; }', qr/this location answers by itself; remove proxy_pass and the like from it in .*:\d+/],
    ['on_error: both', '', 'billing_on_error allow 503;', qr/invalid "503"; write \[stale=TIME\] and then 503 or allow in .*:\d+/],
    ['codes: twice', '', 'billing_codes limit=429 limit=403;', qr/"limit=403": the reason has a status already in .*:\d+/],
    ['quota: two costs', '', 'billing_quota requests cost=1 cost=2;', qr/unknown parameter "cost=2"; write cost=N or cost=\$variable/],
    ['metrics beside a webhook', $whole, 'location /m { billing_webhook; billing_metrics; }', qr/"billing_metrics": this location answers for something else already in .*:\d+/],
    ['rules on a webhook', $whole, "$gate location /w { billing_webhook; billing_quota requests; }", qr/no rule of the gate applies to this location; remove billing_plan, billing_feature, billing_quota, billing_rate, billing_credits and billing_stock from it in .*:\d+/],
    ['jwt: nothing', '', 'billing_jwt secret=canary-7f3a-canary-7f3a-canary-7f3a;', qr/the configuration says how tokens are signed, never the token; write alg=HS256 secret=file:PATH, or alg=RS256 jwks=PATH, .* in .*:\d+/],
    ['jwt: alg none', '', 'billing_jwt alg=none;', qr/invalid alg "none"; write HS256, RS256 or ES256, as your tokens are signed in .*:\d+/],
    ['jwt: alg in another case', '', "billing_jwt alg=rs256 jwks=$directory/keys.json;", qr/invalid alg "rs256"; write HS256, RS256 or ES256/],
    ['jwt: no secret', '', 'billing_jwt alg=HS256;', qr/alg=HS256 is verified with a secret; write secret=file:PATH and no jwks= in .*:\d+/],
    ['jwt: keys for a secret', '', "billing_jwt alg=HS256 secret=canary-7f3a-canary-7f3a-canary-7f3a jwks=$directory/keys.json;", qr/alg=HS256 is verified with a secret; write secret=file:PATH and no jwks=/],
    ['jwt: a short secret', '', 'billing_jwt alg=HS256 secret=canary-7f3a;', qr/secret= is shorter than 32 bytes and could be guessed; make one with: openssl rand -hex 32 in .*:\d+/],
    ['jwt: a public key as secret', '', "billing_jwt alg=HS256 secret=file:$directory/public.pem;", qr/secret= is a key of another kind; write alg=RS256 or alg=ES256 and jwks= for public keys in .*:\d+/],
    ['jwt: secret in no file', '', 'billing_jwt alg=HS256 secret=file:/nowhere/secret;', qr{cannot read /nowhere/secret; nginx's master must be able to open it in .*:\d+}],
    ['jwt: a secret for keys', '', 'billing_jwt alg=RS256 secret=canary-7f3a-canary-7f3a-canary-7f3a;', qr{alg=RS256 is verified with public keys; write jwks=PATH or jwks=https://\.\.\. and no secret= in .*:\d+}],
    ['jwt: no keys', '', 'billing_jwt alg=ES256;', qr{alg=ES256 is verified with public keys; write jwks=PATH or jwks=https://\.\.\. and no secret=}],
    ['jwt: keys in no file', '', 'billing_jwt alg=RS256 jwks=/nowhere/keys.json;', qr{/nowhere/keys\.json cannot be read: No such file or directory in .*:\d+}],
    ['jwt: keys in nonsense', '', "billing_jwt alg=RS256 jwks=$directory/public.pem;", qr/public\.pem is not JSON: line 1, column \d+: .* in .*:\d+/],
    ['jwt: no keys in the file', '', "billing_jwt alg=RS256 jwks=$directory/none.json;", qr/none\.json is no JWKS: it has no "keys" with at most 64 keys in .*:\d+/],
    ['jwt: keys for another algorithm', '', "billing_jwt alg=RS256 jwks=$directory/keys.json;", qr/keys\.json has no key for RS256; keys\[0\] is for something else in .*:\d+/],
    ['jwt: a weak key', '', "billing_jwt alg=RS256 jwks=$directory/weak.json;", qr/weak\.json has no key for RS256; keys\[0\] needs n and e of an RSA key with 2048 to 8192 bits in .*:\d+/],
    ['jwt: keys in the clear', '', 'billing_jwt alg=RS256 jwks=http://issuer.example/keys;', qr/keys are fetched over https only, from an address without a user; correct jwks= in .*:\d+/],
    ['jwt: keys nearly here', '', 'billing_jwt alg=RS256 jwks=http://127.0.0.1.evil.example/keys;', qr/keys are fetched over https only/],
    ['jwt: keys of a user', '', 'billing_jwt alg=RS256 jwks=https://user:canary-7f3a@issuer.example/keys;', qr/from an address without a user/],
    ['jwt: keys by another way', '', 'billing_jwt alg=RS256 jwks=ftp://issuer.example/keys;', qr/keys are fetched over https only/],
    ['jwt: a CA for nothing', '', "billing_jwt alg=RS256 jwks=$directory/keys.json ca=$directory/public.pem;", qr{ca= says whom to believe at an https address; remove it, or write jwks=https://\.\.\. in .*:\d+}],
    ['jwt: a CA in no file', '', 'billing_jwt alg=RS256 jwks=https://issuer.example/keys ca=/nowhere/ca.pem;', qr{/nowhere/ca\.pem cannot be read: No such file}],
    ['jwt: leeway', '', 'billing_jwt alg=ES256 jwks=x leeway=soon;', qr/invalid leeway "soon"; write a time up to 1h, as leeway=60s in .*:\d+/],
    ['jwt: a long leeway', '', 'billing_jwt alg=ES256 jwks=x leeway=1d;', qr/invalid leeway "1d"; write a time up to 1h/],
    ['jwt: a token for everybody', '', 'billing_jwt alg=ES256 jwks=x token=session;', qr/token= names where the token is; write a variable, as token=\$cookie_session in .*:\d+/],
    ['jwt: a secret without quotes', '', 'billing_jwt alg=HS256 secret=my canary-7f3a;', qr/a parameter has no value, or a value has blanks and no quotes; write alg=HS256 secret=file:PATH, .* in .*:\d+/],
    ['jwt: parameter', '', 'billing_jwt alg=HS256 key=canary-7f3a;', qr/unknown parameter; known: alg, secret, jwks, ca, issuer, audience, leeway, token in .*:\d+/],
    ['jwt: twice', '', "billing_jwt off; billing_jwt alg=ES256 jwks=$directory/keys.json;", qr/"billing_jwt" directive is duplicate in .*:\d+/],
    ['a claim of no token', $whole, 'billing on; billing_account $billing_jwt_claim_sub;', qr/"billing_account" names a token's claim, and no token is believed anywhere; write "billing_jwt alg=HS256 secret=file:PATH;" or .* in .*:\d+/],
    ['api key: constant', '', 'billing_api_key canary-7f3a;', qr/"billing_api_key": names where a request's key is; write a variable, as \$http_x_api_key in .*:\d+/],
    ['api key: twice', '', 'billing_api_key $http_x_api_key; billing_api_key off;', qr/"billing_api_key" directive is duplicate in .*:\d+/],
    ['an account of no key', $whole, 'billing on; billing_account $billing_api_key_account;', qr/"billing_account" names an API key's account, and no key is looked at anywhere; write "billing_api_key \$http_x_api_key;" beside it in .*:\d+/],
    ['rule: unknown plan', $whole, "$gate billing_plan gold;", qr/no plan "gold" in the catalog \(.*catalog\.json has: free, starter, pro, agency\) in .*:\d+/],
    ['rule: unknown feature', $whole, "$gate billing_feature magic;", qr/no feature "magic" in the catalog \(.*advanced_projections/],
    ['rule: unknown credits', $whole, "$gate billing_credits gold 1;", qr/no credits "gold" in the catalog \(.* has: logo, mockup, video\) in .*:\d+/],
    ['rule: unknown stock', $whole, "$gate billing_stock seats create;", qr/no stock "seats" in the catalog \(.* has: brands\) in .*:\d+/],
    ['rule: stock uncounted', $whole, "$gate billing_stock brands create; billing_on_error allow;", qr/things of a stock are never made uncounted; write "billing_on_error 503;" in this location, which has "allow" in .*:\d+/],
    ['rule: credits unpaid', $whole, "$gate billing_credits logo 1; billing_on_error allow;", qr/credits are never given unpaid; write "billing_on_error 503;" in this location, which has "allow" in .*:\d+/],
    ['rule: unknown rate', $whole, "$gate billing_rate magic;", qr/no rate "magic" in the catalog \(.* has: chatbot\) in .*:\d+/],
    ['rule: unknown window', $whole, "$gate billing_quota requests window=day;", qr/quota "requests" has no window "day" \(.* has: month\) in .*:\d+/],
    ['rule: unknown quota', $whole, "$gate billing_quota magic;", qr/no quota "magic" in the catalog \(.* has: requests\) in .*:\d+/],
);

for my $mistake (@mistakes) {
    my ($what, $http, $server, $message) = $mistake->@*;
    my ($code, $output) = $host->test_config($host->{conf}, HTTP => "    $http", SERVER => "        $server");
    isnt $code, 0, "$what: refused";
    like $output, $message, "$what: says what to write";
    unlike $output, qr/canary-7f3a/, "$what: shows no password";
}

subtest 'the line is the right one' => sub {
    my ($code, $output) = $host->test_config($host->{conf}, HTTP => "    $whole", SERVER => "$gate\n\n        billing_plan gold;");
    my $text = slurp($host->directory . '/test.conf');
    my ($line) = grep { (split /\n/, $text)[$_ - 1] =~ /billing_plan gold/ } 1 .. split(/\n/, $text);
    like $output, qr/in .*test\.conf:$line$/m, 'of the rule, not of the end of its block';
};

sub two_windows($catalog) {
    $catalog->{quotas}{requests} = {windows => {map { $_ => {period => $_} } qw(day month)}};
    $_->{quotas}{requests} = {day => 5, month => undef} for values $catalog->{plans}->%*;
    return;
}

sub overage($what) { return sub ($c) { $c->{plans}{pro}{credits}{logo} = {quantity => 5, overage => $what}; return } }

sub quota_overage($what, $quantity = 5) { return sub ($c) { $c->{plans}{pro}{quotas}{requests} = {quantity => $quantity, overage => $what}; return } }

# Syntax is told with line and column, meaning with the path of the value.
my %wrong = (
    'syntax' => ["{\n  \"plans\": {,}\n}\n", qr/catalog: line 2, column \d+: /],
    'twice the same' => ['{"default_plan": "free", "default_plan": "free"}', qr/line 1, column \d+: duplicate object key/],
    'a product for a price' => [sub ($c) { $c->{plans}{pro}{price}{month}{id} = 'prod_Q1' },
        qr/plans\.pro\.price\.month\.id: "prod_Q1" is a Stripe product; write the id of one of its prices/],
    'one price, two plans' => [sub ($c) { $c->{plans}{pro}{price}{month}{id} = 'price_starter_monthly' },
        qr/plans\.starter\.price\.month\.id|plans\.pro\.price\.month\.id: is used already at plans\./],
    'an undeclared quota' => [sub ($c) { $c->{plans}{pro}{quotas}{calls} = 5 }, qr/plans\.pro\.quotas\.calls: is not declared; declared: requests/],
    'a negative limit' => [sub ($c) { $c->{plans}{pro}{quotas}{requests} = -1 },
        qr/plans\.pro\.quotas\.requests: must be a whole number from 0, or null for unlimited/],
    'a fraction' => [sub ($c) { $c->{plans}{pro}{credits}{logo} = 1.5 }, qr/plans\.pro\.credits\.logo: must be a whole number from 0/],
    'credits without a quantity' => [sub ($c) { $c->{plans}{pro}{credits}{logo} = {} }, qr/plans\.pro\.credits\.logo\.quantity: must be a whole number from 0/],
    'a member of credits' => [sub ($c) { $c->{plans}{pro}{credits}{logo} = {quantity => 5, amount => 4} },
        qr/plans\.pro\.credits\.logo\.amount: unknown member; known here: quantity, warn, overage/],
    'credits: a warning' => [sub ($c) { $c->{plans}{pro}{credits}{logo} = {quantity => 5, warn => '101%'}; return },
        qr/plans\.pro\.credits\.logo\.warn: must be how much of it is gone when the account is told, from "1%" to "100%"/],
    'credits: no part' => [sub ($c) { $c->{plans}{pro}{credits}{logo} = {quantity => 5, warn => 80}; return }, qr/logo\.warn: must be how much/],
    'overage' => [overage('yes'), qr/plans\.pro\.credits\.logo\.overage: must be an object with an amount/],
    'overage for nothing' => [overage({cap => 5}), qr/plans\.pro\.credits\.logo\.overage\.amount: must be what one unit costs in the currency's smallest unit, as "40"/],
    'overage: an amount' => [overage({amount => '1e3'}), qr/logo\.overage\.amount: must be what one unit costs/],
    'overage: a fine amount' => [overage({amount => '0.1234567'}), qr/logo\.overage\.amount: must be what one unit costs/],
    'overage: a number' => [overage({amount => 0.4}), qr/logo\.overage\.amount: .* in quotes/],
    'overage: a cap' => [overage({amount => '40', cap => 0}), qr/logo\.overage\.cap: must be a whole number from 1; leave it out for no cap/],
    'overage: always' => [overage({amount => '40', always => 'no'}), qr/logo\.overage\.always: must be true or false/],
    'overage: a meter' => [overage({amount => '40', meter => 'a b'}), qr/logo\.overage\.meter: must be the event name of a meter at Stripe, of 1-100/],
    'overage: no meter' => [overage({amount => '40', meter => undef}), qr/logo\.overage\.meter: must be the event name/],
    'overage of a quota' => [quota_overage({cap => 5}), qr/plans\.pro\.quotas\.requests\.overage\.amount: must be what one unit costs/],
    'overage of what has no bound' => [quota_overage({amount => '40'}, undef), qr/plans\.pro\.quotas\.requests\.quantity: must be a whole number from 0(?!,)/],
    'overage of what never ends' => [sub ($c) { $c->{quotas}{requests} = {period => 'lifetime'}; quota_overage({amount => '40'})->($c) },
        qr/plans\.pro\.quotas\.requests\.overage: is charged for when a period closes; a sliding or lifetime quota has none that does/],
    'overage of a window' => [sub ($c) { two_windows($c); $c->{plans}{pro}{quotas}{requests}{day} = {quantity => 5, overage => 7}; return },
        qr/plans\.pro\.quotas\.requests\.day\.overage: must be an object with an amount/],
    'a quota: a member' => [sub ($c) { $c->{plans}{pro}{quotas}{requests} = {quantity => 5, cap => 7}; return },
        qr/plans\.pro\.quotas\.requests\.cap: unknown member; known here: quantity, overage/],
    'a window called quantity' => [sub ($c) { two_windows($c); $c->{quotas}{requests}{windows}{quantity} = {period => 'hour'}; return },
        qr/quotas\.requests\.windows\.quantity: "quantity" is an amount's own member; give the window another name/],
    'overage: a member' => [overage({amount => '40', rate => 1}), qr/logo\.overage\.rate: unknown member; known here: amount, cap, always, meter/],
    'an undeclared stock' => [sub ($c) { $c->{plans}{pro}{stock}{seats} = 5 }, qr/plans\.pro\.stock\.seats: is not declared; declared: brands/],
    'half a thing' => [sub ($c) { $c->{plans}{pro}{stock}{brands} = 1.5 }, qr/plans\.pro\.stock\.brands: must be a whole number from 0, or null for unlimited/],
    'less than none' => [sub ($c) { $c->{plans}{pro}{stock}{brands} = -1 }, qr/plans\.pro\.stock\.brands: must be a whole number from 0, or null for unlimited/],
    'a stock of its own' => [sub ($c) { $c->{stock}{brands} = 3 }, qr/stock\.brands: must be \{\}/],
    'no default' => [sub ($c) { $c->{default_plan} = 'gold' }, qr/default_plan: "gold" is no plan/],
    'a default that costs' => [sub ($c) { $c->{default_plan} = 'pro' }, qr/default_plan: must be a plan with "free": true, or one without a price: a new account has paid nothing yet/],
    'a typing error' => [sub ($c) { $c->{plans}{pro}{featuers} = [] }, qr/plans\.pro\.featuers: unknown member; known here: name, description, rank/],
    'a period' => [sub ($c) { $c->{quotas}{requests}{period} = 'week' }, qr/quotas\.requests\.period: must be one of minute, hour, day, month, cycle, sliding, lifetime/],
    'a length' => [sub ($c) { $c->{quotas}{requests} = {period => 'sliding', length => '30s'} },
        qr/quotas\.requests\.length: must be a time from 1m to 366d, as "24h"/],
    'a length of what has its own' => [sub ($c) { $c->{quotas}{requests}{length} = '1h' },
        qr/quotas\.requests\.length: only a sliding window has a length; remove it/],
    'a window without a period' => [sub ($c) { $c->{quotas}{requests} = {windows => {day => {}, month => {period => 'month'}}} },
        qr/quotas\.requests\.windows\.day\.period: must be one of minute/],
    'no windows' => [sub ($c) { $c->{quotas}{requests} = {windows => {}} }, qr/quotas\.requests\.windows: must name at least one window/],
    'a period beside windows' => [sub ($c) { $c->{quotas}{requests}{windows} = {day => {period => 'day'}} },
        qr/quotas\.requests\.period: unknown member; known here: windows/],
    'one amount for two windows' => [sub ($c) { $c->{quotas}{requests} = {windows => {map { $_ => {period => $_} } qw(day month)}} },
        qr/plans\.pro\.quotas\.requests: must be an object with an amount for each of its windows: day, month/],
    'a window without an amount' => [sub ($c) { two_windows($c); delete $c->{plans}{pro}{quotas}{requests}{day} },
        qr/plans\.pro\.quotas\.requests\.day: is missing; write an amount, or null for unlimited/],
    'an amount without a window' => [sub ($c) { two_windows($c); $c->{plans}{pro}{quotas}{requests}{week} = 1 },
        qr/plans\.pro\.quotas\.requests\.week: is no window of this quota; there are: day, month/],
    'a rate' => [sub ($c) { $c->{plans}{pro}{rates}{chatbot} = 10 },
        qr{plans\.pro\.rates\.chatbot: must be COUNT/TIME, as "10/min" or "100/10s", or null for no limit}],
    'an undeclared rate' => [sub ($c) { $c->{plans}{pro}{rates}{calls} = '1/s' }, qr/plans\.pro\.rates\.calls: is not declared; declared: chatbot/],
    'a plan without a rate' => [sub ($c) { delete $c->{plans}{pro}{rates} },
        qr{plans\.pro\.rates\.chatbot: is missing; write COUNT/TIME, as "10/min", or null for no limit}],
    'a rank' => [sub ($c) { $c->{plans}{pro}{rank} = 'high' }, qr/plans\.pro\.rank: must be a whole number from 0/],
    'no policies' => [sub ($c) { $c->{policies} = 'reset' }, qr/policies: must be an object/],
    'an unknown policy' => [sub ($c) { $c->{policies}{credit} = 'reset' }, qr/policies\.credit: unknown member; known here: credits, free_realloc/],
    'a policy for credits' => [sub ($c) { $c->{policies}{credits} = 'keep' }, qr/policies\.credits: must be one of keep_used, reset, prorate/],
    'a number as a policy' => [sub ($c) { $c->{policies}{credits} = 1 }, qr/policies\.credits: must be one of keep_used, reset, prorate/],
    'an allocation again' => [sub ($c) { $c->{policies}{free_realloc} = 'on' }, qr/policies\.free_realloc: must be true or false/],
    'a rollover' => [sub ($c) { $c->{plans}{pro}{rollover} = 100 }, qr/plans\.pro\.rollover: must be true or false/],
    'a variable that is not set' => [sub ($c) { $c->{plans}{pro}{name} = 'Pro ${BILLING_NO_SUCH}' },
        qr/plans\.pro\.name: the environment has no BILLING_NO_SUCH; set it where nginx and ngx-billing are started/],
    'half a variable' => [sub ($c) { $c->{plans}{pro}{description} = '${BILLING_NO' }, qr/plans\.pro\.description: write \$\{NAME\} with the name of a variable/],
    'a variable without a name' => [sub ($c) { $c->{plans}{pro}{features}[1] = '${}' }, qr/plans\.pro\.features\[1\]: write \$\{NAME\}/],
    'a price id in no variable' => [sub ($c) { $c->{plans}{pro}{price}{month}{id} = 'env:BILLING_NO_SUCH' },
        qr/plans\.pro\.price\.month\.id: the environment has no BILLING_NO_SUCH; set it/],
    'a price id in no file' => [sub ($c) { $c->{plans}{pro}{price}{month}{id} = 'file:no.such' },
        qr{plans\.pro\.price\.month\.id: cannot read /\S+/no\.such, or its first line is empty}],
    'an amount' => [sub ($c) { $c->{plans}{pro}{price}{month}{amount} = '79.00' }, qr/plans\.pro\.price\.month\.amount: must be a whole number of the currency's smallest unit/],
);
for my $what (sort keys %wrong) {
    my ($change, $message) = $wrong{$what}->@*;
    my $text = $change;
    if (ref $change) {
        my $data = JSON::PP->new->utf8->decode(slurp($catalog));
        $change->($data);
        $text = JSON::PP->new->utf8->encode($data);
    }
    Billing::Nginx::write_file("$directory/catalog", $text);
    my ($code, $output) = $host->test_config($host->{conf}, HTTP => "billing_catalog $directory/catalog;", SERVER => '');
    isnt $code, 0, "S8: catalog with $what: refused by nginx -t";
    like $output, $message, "S8: catalog with $what: says where and what";
    my $command = Billing::Test::run_command('catalog', 'validate', "$directory/catalog");
    is $command->{code}, 1, "S8: catalog with $what: refused by the command";
    like $command->{err}, $message, "S8: catalog with $what: in the same words";
}

subtest 'what is right passes' => sub {
    my ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole, SERVER => "$gate billing_plan >=pro; billing_feature svg_export;"
        . ' billing_quota requests cost=$arg_n; billing_on_error stale=1h allow; billing_codes limit=429 plan=402;');
    is $code, 0, 'a whole configuration' or diag $output;
    ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole, SERVER => "$gate billing_quota requests window=month; billing_rate chatbot;");
    is $code, 0, 'G10: a quota with one period has it as its window' or diag $output;
    my $data = JSON::PP->new->utf8->decode(slurp($catalog));
    $data->{policies} = {credits => 'prorate', free_realloc => JSON::PP::true};
    $data->{plans}{pro}{rollover} = JSON::PP::true;
    two_windows($data);
    Billing::Nginx::write_file("$directory/windows", JSON::PP->new->utf8->encode($data));
    my $windows = $whole =~ s/billing_catalog \S+;/billing_catalog $directory\/windows;/r;
    ($code, $output) = $host->test_config($host->{conf}, HTTP => $windows,
        SERVER => "$gate billing_quota requests window=month; billing_quota requests window=day cost=2;");
    is $code, 0, 'G10: windows of the catalog' or diag $output;
    ($code, $output) = $host->test_config($host->{conf}, HTTP => $windows, SERVER => "$gate billing_quota requests;");
    like $output, qr/quota "requests" has several windows; write window=NAME, a line for each that counts \(.* has: day, month\) in .*:\d+/,
        'G10: which have to be named';
    unlike $output, qr/warn/, 'without a warning';

    Billing::Nginx::write_file("$directory/dsn", "host=127.0.0.1 port=1 dbname=nowhere password=canary-7f3a\n");
    local $ENV{BILLING_TEST_REDIS} = 'redis://:canary-7f3a@127.0.0.1:1/0';
    ($code, $output) = $host->test_config($host->{conf}, SERVER => $gate,
        HTTP => "$zone billing_postgres file:$directory/dsn; billing_redis env:BILLING_TEST_REDIS; billing_catalog $catalog;");
    is $code, 0, 'O6: settings from a file and from the environment' or diag $output;
    unlike $output, qr/canary-7f3a/, 'O3: which show nowhere';
    like $output, qr/\[warn\].*an upgraded nginx would not find BILLING_TEST_REDIS, which is read from the environment in .*:\d+; write "env BILLING_TEST_REDIS;" at the top of nginx\.conf/,
        'O6: with a warning, where nginx does not keep it';
    like $output, qr/\[warn\].*"billing_postgres": everybody on this machine may read \Q$directory\E\/dsn, which holds a secret; chmod 600 mends it in .*:\d+/,
        'A42: and of a file that everybody may read';
    chmod 0600, "$directory/dsn";
    ($code, $output) = $host->test_config("env BILLING_TEST_REDIS;\n$host->{conf}", SERVER => $gate,
        HTTP => "$zone billing_postgres file:$directory/dsn; billing_redis env:BILLING_TEST_REDIS; billing_catalog $catalog;");
    is "$code" . ($output =~ /warn/ ? $output : ''), 0, 'and none once both are mended';

    $data = JSON::PP->new->utf8->decode(slurp($catalog));
    $data->{plans}{pro}{name} = 'Pro (${BILLING_TEST_NAME}, ${BILLING_TEST_NAME})';
    $data->{plans}{pro}{price}{month}{id} = 'env:BILLING_TEST_PRICE';
    $data->{plans}{starter}{price}{month}{id} = 'price_${BILLING_TEST_NAME}';
    $data->{plans}{agency}{price}{month}{id} = 'file:agency.price';
    $data->{plans}{agency}{description} = 'env:is, elsewhere, a word';
    Billing::Nginx::write_file("$directory/agency.price", "price_of_agency\n");
    Billing::Nginx::write_file("$directory/settings", JSON::PP->new->utf8->encode($data));
    local @ENV{qw(BILLING_TEST_NAME BILLING_TEST_PRICE)} = ('gold', 'price_of_pro');
    my $env = join '', map { "env $_;\n" } qw(BILLING_TEST_NAME BILLING_TEST_PRICE);
    ($code, $output) = $host->test_config("$env$host->{conf}", HTTP => "$zone $postgres billing_catalog $directory/settings;", SERVER => $gate);
    is "$code" . ($output =~ /warn/ ? $output : ''), 0, 'S8, O6: a catalog with price ids and texts from the environment and from files' or diag $output;
    ($code, $output) = $host->test_config($host->{conf}, HTTP => "$zone $postgres billing_catalog $directory/settings;", SERVER => $gate);
    like $output, qr/\[warn\].*an upgraded nginx would not find BILLING_TEST_$_, which is read from the environment in .*:\d+/, "O6: with a warning, where nginx does not keep BILLING_TEST_$_"
        for qw(NAME PRICE);
    local $ENV{BILLING_TEST_PRICE} = 'price_gold';
    ($code, $output) = $host->test_config($host->{conf}, HTTP => "$zone $postgres billing_catalog $directory/settings;", SERVER => $gate);
    like $output, qr/"price_gold"|id: is used already at plans\./, 'what comes from there is judged as what is written';

    ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole, SERVER => 'billing on; billing_account $http_x_account;');
    is $code, 0, 'an account from a header passes' or diag $output;
    like $output, qr/\[warn\].*"billing_account \$http_x_account" trusts what the client sends/, 'G1: with a warning';

    my $unchecked = qr/\[warn\].*\$remote_user is what the client says where no password is checked; write "auth_basic" beside "billing_account"/;
    for my $case (['billing_account $remote_user;', 1], ['billing_account "basic:$remote_user"; location / { } location /x/ { }', 1], ['billing_account $remote_user; auth_basic off;', 1],
        ['billing_account $remote_user; auth_basic app; location /open/ { auth_basic off; }', 1], ['billing_account $remote_user; auth_basic app;', 0],
        ['billing_account $remote_user; auth_basic app; location /open/ { auth_basic off; billing off; }', 0], ['billing_account $remote_user; auth_request /check; location = /check { billing off; }', 0]) {
        ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole, SERVER => "billing on; $case->[0]");
        is $code, 0, "$case->[0] passes" or diag $output;
        my $warnings = () = $output =~ /$unchecked, or make sure that another module checks it in .*:\d+/g;
        is $warnings, $case->[1], 'G1: with a warning, once, where nobody checks the user, and only there' or diag $output;
    }

    for my $early ('location /old/ { return 301 /new/; }', 'location /old/ { rewrite ^ /new/ permanent; }',
        'location /old/ { rewrite ^/old/(.*)$ https://example.com/$1; }', 'location /old/ { if ($arg_a) { return 403; } return 204; }') {
        ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole, SERVER => "$gate $early");
        is $code, 0, "$early passes" or diag $output;
        like $output, qr/\[warn\].*location "\/old\/" answers by "return" or "rewrite" before the gate is asked; write "billing off;" in it if that is meant in .*:\d+/,
            'G22: with a warning';
    }
    ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole,
        SERVER => "$gate location / { auth_request /check; } location = /check { proxy_pass http://127.0.0.1:1; }");
    is $code, 0, 'a gated target of auth_request passes' or diag $output;
    like $output, qr/\[warn\].*location "\/check" is asked by auth_request, before anybody is known, and gated; write "billing off;" in it in .*:\d+/,
        'G22: with a warning';
    for my $fine ('location /old/ { billing off; return 301 /new/; }', 'location /x/ { if ($arg_a) { return 403; } rewrite ^/x/(.*)$ /y/$1 break; }',
        'location / { rewrite ^ /x/y last; set $a b; }', 'location / { auth_request /check; } location = /check { billing off; return 204; }',
        'location / { auth_request /check; } location = /check { billing_check; }', 'location /a/ { auth_request off; }',
        'location / { auth_request /check; } location ~ ^/ch { billing off; }') {
        ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole, SERVER => "$gate $fine");
        is $code, 0, "$fine passes" or diag $output;
        unlike $output, qr/warn/, 'without a warning';
    }

    my $named = 'billing_account_from body:user_id query:user_id';
    for my $case (['test', "$named;", 1], ['test', "$named; allow 10.0.0.0/8; deny all;", 0], ['live', "$named; allow 10.0.0.0/8; deny all;", 0], ['live', "$named; deny all;", 0],
        ['test', "$named certificate;", 0], ['live', "$named token=3f1c0e5b9a7d42c68e90;", 0], ['live', "$named certificate;", 0]) {
        my ($mode, $says, $warns) = @$case;
        ($code, $output) = $host->test_config($host->{conf}, HTTP => "$whole billing_stripe key=sk_${mode}_canary-7f3a;",
            SERVER => "billing_public_url https://a.example; location /c { $says billing_checkout; }");
        is $code, 0, "C17: $says with a $mode key" or diag $output;
        my $warnings = () = $output =~ /\[warn\].*"billing_account_from" lets whoever reaches this location act for any account; write token=file:PATH or certificate beside it, or in the location "allow ADDRESS;" and "deny all;" in .*:\d+/g;
        is $warnings, $warns, $warns ? 'C17: with a warning' : 'without a warning' or diag $output;
    }

    for my $identity ("billing_account \$billing_jwt_claim_sub; billing_jwt alg=ES256 jwks=$directory/keys.json issuer=i audience=a leeway=0;",
        'billing_account $billing_jwt_claim_org; billing_jwt alg=RS256 jwks=https://issuer.example/keys token=$cookie_session;',
        'billing_account $billing_jwt_claim_sub; billing_jwt alg=RS256 jwks=http://127.0.0.1:9999/keys;',
        'billing_account $billing_jwt_claim_sub; billing_jwt alg=HS256 secret=env:BILLING_TEST_SECRET; location /open/ { billing_jwt off; }',
        'billing_account $billing_jwt_claim_sub; location / { billing_jwt alg=HS256 secret=env:BILLING_TEST_SECRET; }',
        'billing_account $billing_api_key_account; billing_api_key $http_x_api_key; location /open/ { billing_api_key off; }') {
        local $ENV{BILLING_TEST_SECRET} = 'canary-7f3a-canary-7f3a-canary-7f3a';
        ($code, $output) = $host->test_config($host->{conf}, HTTP => $whole, SERVER => "billing on; $identity");
        is $code, 0, "G2: $identity" or diag $output;
        unlike $output =~ s/.*would not find BILLING_TEST_SECRET.*//gr, qr/warn|canary-7f3a/, 'without a warning';
    }

    my $sample = slurp(root() . '/conf/nginx.conf');
    my $module = Billing::Nginx::module_file();
    $sample =~ s{^load_module .*$}{%%GLOBALS%%}m;
    $sample =~ s{file:/etc/nginx/billing\.dsn}{file:$directory/dsn};
    $sample =~ s{billing_catalog catalog\.json}{billing_catalog $catalog};
    $sample =~ s{http \{}{http \{ %%HTTP_GLOBALS%%};
    ($code, $output) = $host->test_config($sample);
    is $code, 0, 'conf/nginx.conf' or diag $output;
};

subtest 'bodies: not without end, and not cut off' => sub {
    my $of = sub ($server) { ($host->test_config($host->{conf}, HTTP => "    $whole billing_stripe key=sk_test_canary-7f3a;", SERVER => "        $server"))[1] };
    my $webhook = 'billing_webhook; billing_webhook_secret whsec_1;';
    my $endless = qr/\[warn\].*client_max_body_size is 0: whoever sends a body without end fills the disk with it; write "client_max_body_size 1m;" in .*:\d+/;
    like $of->("location /w { client_max_body_size 0; $webhook }"), $endless, 'A35: a webhook of any size is warned of';
    like $of->("client_max_body_size 0; location /w { $webhook }"), $endless, 'A35: also where the size is inherited';
    like $of->('billing_account $remote_user; billing_public_url https://a.example; client_max_body_size 0; location /c { billing_checkout; }'), $endless, 'A35: so is a checkout';
    like $of->("client_max_body_size 100k; location /w { $webhook }"),
        qr/\[warn\].*client_max_body_size keeps out events of more than 102400 bytes, and some have 512 kB; write "client_max_body_size 1m;" in .*:\d+/, 'W2: a size that keeps events out';
    unlike $of->("location /w { $webhook }"), qr/client_max_body_size/, 'the default is right';
    unlike $of->("client_max_body_size 512k; location /w { $webhook }"), qr/client_max_body_size/, 'and so is what just fits';
    unlike $of->('client_max_body_size 0; location /metrics { billing_metrics; }'), qr/client_max_body_size/, 'metrics have no body';
};

done_testing;
