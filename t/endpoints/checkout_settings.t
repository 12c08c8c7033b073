# A checkout looks as the operator wrote, leads back to no page but the operator's, and is for those whom the operator lets: whatever
# the client sends. C1 C3 C4 C6 C7 C9 A11 A12 A13 A16.
use v5.36;
use Billing::Test;
use Billing::Journey qw(problem answer_of);
use Billing::Process qw(new_directory);

my $configuration = new_directory() . '/configuration';
my $world = world(
    stripe => 1,
    start => 0,
    http => <<'END',
    map $http_authorization $role { default ""; "~^Bearer test:[^ ]+ role (?<test_role>.+)$" $test_role; }
END
    locations => <<'END' . "location = /made/portal { billing_portal create configuration=file:$configuration return_url=/account?from=portal; }",
    billing_account $account;
    billing_return_urls https://shop.example https://partner.example/thanks/;
    billing_customer email=$http_x_test_email name=$http_x_test_name;
    set $account "";
    if ($http_authorization ~ "^Bearer test:([^ ]+)") { set $account $1; }
    location = /billing/webhook { billing_webhook; }
    location = /plain/checkout { billing_checkout; }
    location = /plain/portal { billing_portal; }
    location = /named/checkout { billing_checkout plan=pro_monthly; }
    location = /other/checkout { billing_checkout; billing_success_url /other/done; billing_cancel_url /other/no;
        billing_checkout_session allow_promotion_codes=off billing_address_collection=required tax_id_collection=off automatic_tax=on trial_period_days=14 locale=de; }
    location = /least/checkout { billing_checkout;
        billing_checkout_session allow_promotion_codes=off tax_id_collection=off; }
    location = /many/checkout { billing_checkout packs=1-20 seats=2-50; }
    location /roles/ {
        billing_role $role owner billing;
        location = /roles/checkout { billing_checkout; }
        location = /roles/portal { billing_portal; }
    }
    location /owners/ { billing_role $role; location = /owners/checkout { billing_checkout; } }
    location /both/ {
        billing_role $role owner;
        billing_subject $http_x_test_subject support;
        location = /both/checkout { billing_checkout; }
    }
    location /members/ {
        billing_subject $http_x_test_subject;
        location = /members/checkout { billing_checkout; }
        location = /members/portal { billing_portal create redirect; }
    }
END
);
my $host = $world->host;
my $stripe = $world->stripe;
my $json = JSON::PP->new->canonical;
my $portal = $stripe->portal_configuration->{id};
open my $out, '>', $configuration or die "$configuration: $!\n";
print $out "$portal\n";
close $out;
$host->start;

sub post($path, $who, $body, %headers) {
    return $host->request('POST', $path, body => ref $body ? $json->encode($body) : $body,
        headers => {Authorization => "Bearer test:$who", 'Content-Type' => ref $body ? 'application/json' : 'application/x-www-form-urlencoded', %headers});
}
sub sessions($account) { grep { $_->{client_reference_id} eq $account } $stripe->all('checkout.session') }
sub session($account) { my ($open) = grep { $_->{status} eq 'open' } sessions($account); return $stripe->object($open->{id}) }
sub sent($path) { my ($last) = reverse $stripe->calls(method => 'POST', path => "/v1/$path"); return $last->{params} }
sub of($object, @names) { return {map { $_ => $object->{$_} } @names} }

subtest 'C1: what is sold where nothing is named' => sub {
    is answer_of(post('/named/checkout', 'default', {})), '200', 'the default';
    is session('default')->{metadata}{price}, 'price_pro_monthly', 'is bought';
    is answer_of(post('/named/checkout', 'chosen', {plan => 'starter'})), '200', 'but what is named goes first';
    is session('chosen')->{metadata}{price}, 'price_starter_monthly', 'and is bought';
    is answer_of(post('/named/checkout', 'wrong', {plan => 'gold'})), '400 UNKNOWN_PLAN', 'a name that is wrong is not replaced';
};

subtest 'C1, C6: how many' => sub {
    my $line = sub { my $sent = sent('checkout/sessions'); join ' ', $sent->{line_items}[0]->@{qw(price quantity)}, map { $_ // '-' } $sent->{metadata}->@{qw(quantity creditQty)} };
    is answer_of(post('/many/checkout', 'packs', {plan => 'logo_10', quantity => 3, amount => 1, creditQty => 1000})), '200', 'three packs';
    is $line->(), 'price_logo_pack_10 3 3 30', 'at the price of the catalog, for their credits';
    is answer_of(post('/many/checkout', 'packs', {plan => 'logo_10', quantity => $_})), '400 INVALID_QUANTITY', "not $_" for 0, -1, 21, '+3', '3.0', '1e1', '03', '9223372036854775808', ' 3', 'x';
    is answer_of(post('/many/checkout', 'packs', qq({"plan":"logo_10","quantity":$_}), 'Content-Type' => 'application/json')), '400 INVALID_QUANTITY', "not $_"
        for '3.0', '1e0', 'true', '[3]', '{"a":3}';
    is answer_of(post('/many/checkout', 'packs', {plan => 'logo_10', quantity => ''})), '200', 'none is named';
    is $line->(), 'price_logo_pack_10 1 1 10', 'the least is sold';
    is answer_of(post('/many/checkout', 'packs', 'plan=logo_10&quantity=20')), '303', 'by a form';
    is $line->(), 'price_logo_pack_10 20 20 200', 'the most';

    my $ten = post('/many/checkout', 'seats', {plan => 'pro', quantity => 10})->json->{url};
    is $line->(), 'price_pro_monthly 10 10 -', 'ten seats of a plan';
    is post('/many/checkout', 'seats', {plan => 'pro', quantity => 10})->json->{url}, $ten, 'the same again: the same session';
    isnt post('/many/checkout', 'seats', {plan => 'pro'})->json->{url}, $ten, 'another number is another session';
    is $line->(), 'price_pro_monthly 2 2 -', 'the least';
    is answer_of(post('/many/checkout', 'seats', {plan => 'pro', quantity => 1})), '400 INVALID_QUANTITY', 'which is the least';
    is answer_of(post('/plain/checkout', 'one', {plan => 'logo_10', quantity => 7})), '200', 'C2: where the operator leaves no choice';
    is $line->(), 'price_logo_pack_10 1 1 10', 'one is sold';

    post('/many/checkout', 'bought', {plan => 'logo_10', quantity => 4});
    $stripe->pay(session('bought')->{id});
    my $balance = sub { ($world->sql(q{SELECT bought FROM billing.credit_balances b JOIN billing.accounts a ON a.id = b.account_id
        JOIN billing.credit_types USING (credit_no) WHERE external_id = 'bought' AND credit_key = 'logo'}))[0] };
    wait_for(sub { (($balance->() // {})->{bought} // 0) == 40 }, 10, 'C1: four packs that are paid bring their credits');
};

subtest 'C6: how a session looks' => sub {
    is answer_of(post('/plain/checkout', 'usual', {plan => 'pro'})), '200', 'with what is usual';
    my $usual = session('usual');
    is_deeply of(sent('checkout/sessions'), qw(allow_promotion_codes billing_address_collection tax_id_collection customer_update locale payment_method_types)),
        {allow_promotion_codes => 'true', billing_address_collection => 'auto', tax_id_collection => {enabled => 'true'},
        customer_update => {name => 'auto', address => 'auto'}, locale => undef, payment_method_types => undef},
        'promotion codes, a tax id, an address where one is needed; ways to pay are set at Stripe';
    is_deeply $usual->{metadata}, {account => 'usual', plan => 'pro', price => 'price_pro_monthly', quantity => '1'}, 'whose it is and what is bought';
    is_deeply $stripe->object($usual->{customer})->{metadata}, {account => 'usual'}, "the customer's too";
    is_deeply sent('checkout/sessions')->{subscription_data}, {metadata => {account => 'usual', plan => 'pro'}}, 'subscriptions carry the same';

    is answer_of(post('/other/checkout', 'other', {plan => 'pro'})), '200', 'with all of it otherwise';
    is_deeply of(sent('checkout/sessions'), qw(allow_promotion_codes billing_address_collection tax_id_collection automatic_tax customer_update locale success_url cancel_url)),
        {allow_promotion_codes => 'false', billing_address_collection => 'required', tax_id_collection => undef, automatic_tax => {enabled => 'true'},
        customer_update => {address => 'auto'}, locale => 'de', success_url => $world->public_url . '/other/done', cancel_url => $world->public_url . '/other/no'}, 'it is so';
    is answer_of(post('/other/checkout', 'other-pack', {plan => 'logo_10'})), '200', 'a pack has no trial, and Stripe takes it';
    is session('other-pack')->{metadata}{credit}, 'logo', "the product's label";
    is answer_of(post('/least/checkout', 'least', {plan => 'pro'})), '200', 'with nothing of it';
    is_deeply [grep { /customer_update|tax|trial|locale/ } sort keys sent('checkout/sessions')->%*], [], 'nothing more is sent';
};

subtest 'C6: a trial is for the first subscription' => sub {
    my $trial = sub { sent('checkout/sessions')->{subscription_data}{trial_period_days} };
    is answer_of(post('/other/checkout', 'tried', {plan => 'pro'})), '200', 'a checkout';
    is $trial->(), 14, 'has it';
    $stripe->pay(session('tried')->{id});
    wait_for(sub { answer_of(post('/other/checkout', 'tried', {plan => 'pro'})) eq '409 ALREADY_SUBSCRIBED' }, 10, 'the subscription is known');
    is $world->sql(q{SELECT 1 FROM billing.subscriptions s JOIN billing.accounts a ON a.id = s.account_id WHERE a.external_id = 'tried' AND s.status = 'trialing'}), 1, 'it is a trial';
    my ($subscription) = grep { $_->{status} eq 'trialing' } $stripe->all('subscription');
    wait_for(sub { !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) }, 10, 'all is known');
    $stripe->cancel_now($subscription->{id});
    wait_for(sub { answer_of(post('/other/checkout', 'tried', {plan => 'pro'})) eq '200' }, 10, 'it has ended');
    is $trial->(), undef, 'the next one has none';
};

subtest 'C6: an open session is used again for the same, and not for another page' => sub {
    my $first = post('/plain/checkout', 'pages', {plan => 'pro'})->json->{url};
    is post('/plain/checkout', 'pages', {plan => 'pro'})->json->{url}, $first, 'the same again';
    my $second = post('/plain/checkout', 'pages', {plan => 'pro', returnUrl => '/elsewhere'})->json->{url};
    isnt $second, $first, 'another page to come back to: another session';
    is_deeply [map { $_->{status} } sessions('pages')], [qw(expired open)], 'the first one cannot be paid any more';
    is post('/plain/checkout', 'pages', {plan => 'pro', returnUrl => '/elsewhere'})->json->{url}, $second, 'which is used again too';
};

subtest 'C7: where Stripe leads back to' => sub {
    my $public = $world->public_url;
    my $usual = "$public/?checkout=success&session_id={CHECKOUT_SESSION_ID}";
    my $number = 0;
    for my $case (
        [{returnUrl => '/wizard?step=3'}, {}, "$public/wizard?step=3&checkout=success&session_id={CHECKOUT_SESSION_ID}", 'a path'],
        [{returnUrl => 'https://shop.example/cart'}, {}, 'https://shop.example/cart?checkout=success&session_id={CHECKOUT_SESSION_ID}', 'an address that is allowed'],
        [{}, {Origin => 'https://shop.example'}, 'https://shop.example/?checkout=success&session_id={CHECKOUT_SESSION_ID}', 'B: an Origin that is allowed'],
        [{returnUrl => 'https://evil.example/'}, {}, $usual, 'A11: an address that is not'],
        [{returnUrl => '//evil.example'}, {}, $usual, 'A11: one without a scheme'],
        [{returnUrl => 'https://shop.example@evil.example'}, {}, $usual, 'A11: one with a user'],
        [{returnUrl => "/x\r\nSet-Cookie: a=b"}, {}, $usual, 'A11: one with a line feed'],
        [{}, {Origin => 'https://evil.example'}, $usual, 'A12: an Origin that is not'],
        [{}, {Host => 'evil.example', 'X-Forwarded-Host' => 'evil.example'}, $usual, 'A12: the host of the request'],
    ) {
        my ($more, $headers, $success, $what) = @$case;
        my $account = 'back-' . ++$number;
        is answer_of(post('/plain/checkout', $account, {plan => 'pro', %$more}, %$headers)), '200', $what;
        is session($account)->{success_url}, $success, "$what: where it leads";
    }
    is answer_of(post('/plain/checkout', 'form', 'plan=pro&returnUrl=%2Fdone', Origin => 'https://shop.example')), '303', "an allowed page's form is taken";
    is answer_of(post('/plain/checkout', 'form-2', 'plan=pro', Origin => 'https://partner.example')), '403 CROSS_SITE', 'A13: not one of a site with an allowed page';

    my $return = sub { sent('billing_portal/sessions')->{return_url} };
    is answer_of(post('/plain/portal', 'form', {returnUrl => 'https://partner.example/thanks/a'})), '200', 'the portal';
    is $return->(), 'https://partner.example/thanks/a', 'leads back there';
    is answer_of(post('/plain/portal', 'form', {returnUrl => 'https://partner.example/thanks/../b'})), '200', 'or not';
    is $return->(), "$public/", 'A11: but to ours';
};

subtest 'C3: who may' => sub {
    for my $case (['owner', '200'], ['billing', '200'], ['member', '403 ROLE_REQUIRED'], ['Owner', '403 ROLE_REQUIRED'], ['owner billing', '403 ROLE_REQUIRED']) {
        my ($role, $wanted) = @$case;
        is answer_of(post('/roles/checkout', "acme role $role", {plan => 'pro'})), $wanted, "the role $role";
        is answer_of(post('/roles/portal', "acme role $role", {})), $wanted, "the role $role, in the portal";
    }
    is answer_of(post('/roles/checkout', 'acme', {plan => 'pro'})), '403 ROLE_REQUIRED', 'no role';
    is answer_of(post('/owners/checkout', 'acme role owner', {plan => 'pro'})), '200', 'owners, where none are listed';
    is answer_of(post('/owners/checkout', 'acme role billing', {plan => 'pro'})), '403 ROLE_REQUIRED', 'and nobody else';

    $world->sql(q{SELECT billing.member_set('acme', s, r) FROM (VALUES ('ann', 'owner'), ('bob', 'member')) v(s, r)});
    is answer_of(post('/members/checkout', 'acme', {plan => 'pro'}, 'X-Test-Subject' => 'ann')), '200', 'a member who is owner';
    is answer_of(post('/members/checkout', 'acme', {plan => 'pro'}, 'X-Test-Subject' => 'bob')), '403 ROLE_REQUIRED', 'one who is not';
    is answer_of(post('/members/checkout', 'acme', {plan => 'pro'}, 'X-Test-Subject' => 'eve')), '403 ROLE_REQUIRED', 'somebody else';
    is answer_of(post('/members/checkout', 'acme', {plan => 'pro'})), '403 ROLE_REQUIRED', 'nobody';
    is answer_of(post('/members/checkout', 'other', {plan => 'pro'}, 'X-Test-Subject' => 'ann')), '403 ROLE_REQUIRED', "another account's owner";
    $world->sql(q{SELECT billing.member_set('acme', 'bob', 'owner'), billing.member_set('acme', 'ann', NULL)});
    $world->sql(q{SELECT billing.member_set('acme', 'sue', 'support')});
    is answer_of(post('/both/checkout', 'acme', {plan => 'pro'}, 'X-Test-Subject' => 'sue')), '200', "a member's role is enough where it is listed for members";
    is answer_of(post('/both/checkout', 'acme role support', {plan => 'pro'}, 'X-Test-Subject' => 'sue')), '403 ROLE_REQUIRED', 'and not for who says it of himself';
    is answer_of(post('/both/checkout', 'acme role owner', {plan => 'pro'})), '200', 'each list is its own';
    is answer_of(post('/members/checkout', 'acme', {plan => 'pro'}, 'X-Test-Subject' => 'bob')), '200', 'roles change at once';
    is answer_of(post('/members/checkout', 'acme', {plan => 'pro'}, 'X-Test-Subject' => 'ann')), '403 ROLE_REQUIRED', 'either way';
    is_deeply [$world->sql(q{SELECT before ->> 'role' AS was, after ->> 'role' AS is FROM billing.audit_log WHERE action = 'role.change' AND coalesce(before, after) ->> 'subject' IN ('ann', 'bob') ORDER BY id})],
        [{was => undef, is => 'owner'}, {was => undef, is => 'member'}, {was => 'member', is => 'owner'}, {was => 'owner', is => undef}], 'S11: and leave their rows';
};

subtest 'A16: ids that a client writes are only compared' => sub {
    is answer_of(post('/plain/checkout', 'mine', {plan => 'pro', user_id => 'mine'})), '200', 'its own';
    my $customer = session('mine')->{customer};
    is answer_of(post('/plain/checkout', 'theirs', {plan => 'pro', $_ => 'mine'})), '403 NOT_YOURS', "another's $_" for qw(user_id userId account_id accountId);
    is answer_of(post('/plain/checkout?user_id=mine', 'theirs', {plan => 'pro'})), '403 NOT_YOURS', 'in the query';
    is answer_of(post('/plain/portal', 'mine', {$_ => $customer})), '200', "one's own $_" for qw(customer_id customerId customer);
    is answer_of(post('/plain/checkout', 'theirs', {plan => 'pro'})), '200', 'somebody else has a customer too';
    is answer_of(post('/plain/portal', 'theirs', {$_ => $customer})), '403 NOT_YOURS', "C9: another's $_" for qw(customer_id customerId customer);
    is answer_of(post('/members/checkout', 'acme', {plan => 'pro', user_id => 'bob'}, 'X-Test-Subject' => 'bob')), '200', "the person's own id";
};

subtest 'C4: what a customer is called' => sub {
    my $customer = sub ($account) { my ($c) = grep { ($_->{metadata}{account} // '') eq $account } $stripe->all('customer'); return of($stripe->object($c->{id}), qw(email name)) };
    post('/plain/checkout', 'called', {plan => 'pro'}, 'X-Test-Email' => 'ann@example.com', 'X-Test-Name' => 'Ann Ö.');
    is_deeply $customer->('called'), {email => 'ann@example.com', name => "Ann \x{d6}."}, 'as the variables say';
    post('/plain/portal', 'known', {});
    $world->sql(q{INSERT INTO billing.accounts (external_id, plan_no, email) VALUES ('known', 1, 'row@example.com' )});
    post('/plain/checkout', 'known', {plan => 'pro'}, 'X-Test-Email' => 'ann@example.com', 'X-Test-Name' => 'Known');
    is_deeply $customer->('known'), {email => 'row@example.com', name => 'Known'}, "the account's row goes first";
    post('/plain/checkout', 'uncalled', {plan => 'pro'});
    is_deeply $customer->('uncalled'), {email => undef, name => undef}, 'or nothing';
};

subtest 'C9: a portal that makes the customer' => sub {
    is answer_of(post('/plain/portal', 'newcomer', {})), '404 NO_CUSTOMER', 'elsewhere there is none';
    is answer_of(post('/made/portal', 'newcomer', {})), '200', 'here one is made';
    my @made = grep { ($_->{metadata}{account} // '') eq 'newcomer' } $stripe->all('customer');
    is scalar(@made), 1, 'one';
    is_deeply sent('billing_portal/sessions'), {customer => $made[0]{id}, configuration => $portal, return_url => $world->public_url . '/account?from=portal'},
        'it is in the portal, as configured, and led back';
    is answer_of(post('/made/portal', 'newcomer', {})), '200', 'again';
    is answer_of(post('/plain/portal', 'newcomer', {})), '200', 'and elsewhere';
    is scalar(grep { ($_->{metadata}{account} // '') eq 'newcomer' } $stripe->all('customer')), 1, 'is the same customer';
};

# B: clerkUserId, creditQty, productType; C: userId, tier.
subtest "C6: metadata under the operator's names, and read back by them" => sub {
    my $other = world(
        stripe => 1,
        http => 'billing_metadata account=clerkUserId plan=tier credit=productType quantity=packSize;',
        locations => <<'END',
    billing_account $user;
    location /export/ { billing on; billing_feature asset_download; proxy_pass http://app; }
    location = /billing/webhook { billing_webhook; }
    location = /checkout { billing_checkout; }
END
    );
    my ($there, $seller) = ($other->host, $other->stripe);
    my $buy = sub ($plan) {
        is answer_of($there->request('POST', '/checkout', body => $json->encode({plan => $plan}), headers => {'Content-Type' => 'application/json', Authorization => 'Bearer test:renamed'})),
            '200', "a checkout of $plan";
        my ($open) = grep { $_->{status} eq 'open' } $seller->all('checkout.session');
        return $seller->object($open->{id});
    };
    my $session = $buy->('starter');
    is_deeply $session->{metadata}, {clerkUserId => 'renamed', tier => 'starter', price => 'price_starter_monthly', quantity => '1'}, 'a plan';
    my ($sent) = reverse $seller->calls(method => 'POST', path => '/v1/checkout/sessions');
    is_deeply $sent->{params}{subscription_data}, {metadata => {clerkUserId => 'renamed', tier => 'starter'}}, 'the subscription carries the same';
    is_deeply $seller->object($session->{customer})->{metadata}, {clerkUserId => 'renamed'}, "and the customer whose it is";
    $other->sql(q{UPDATE billing.accounts SET stripe_customer_id = NULL WHERE external_id = 'renamed'});    # so that only the metadata tells
    $seller->pay($session->{id});
    wait_for(sub { $there->get('/export/x', Authorization => 'Bearer test:renamed')->status == 200 }, 10, 'the plan has come');
    is $other->account('renamed')->{plan}, 'starter', 'W5: it is linked by that name';
    $session = $buy->('logo_10');
    is_deeply $session->{metadata}, {clerkUserId => 'renamed', productType => 'logo', packSize => '10', price => 'price_logo_pack_10', quantity => '1'}, 'B: a pack';
    $seller->pay($session->{id});
    wait_for(sub { $other->sql(q{SELECT 1 FROM billing.credit_balances WHERE bought = 10}) }, 10, 'its credits');
    pass 'B: and its credits have come';
};

done_testing;
