# The promise: a client meets the same API as at Stripe: keys, versions, forms, request ids, idempotency keys; and on demand every
# fault that a network or Stripe itself may have, before or after the call has been carried out.
use v5.36;
use Billing::Client qw(request requests);
use Billing::Process qw(root wait_for);
use Billing::Stripe;
use IO::Socket::INET ();
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(time);

my $stripe = Billing::Stripe->new(catalog => root() . '/conf/catalog.json');
my $bearer = 'Bearer ' . $stripe->key;
my $form = 'application/x-www-form-urlencoded';
my @customer = (POST => '/v1/customers');

sub error_of($answer) { $answer->json->{error} }

subtest 'who calls' => sub {
    my $bare = sub (%headers) { request($stripe->address, 'GET', '/v1/customers', headers => \%headers) };
    is $bare->()->status, 401, 'no key';
    like error_of($bare->())->{message}, qr/did not provide an API key/, 'is told so';
    is $bare->(Authorization => 'Bearer sk_test_wrong')->status, 401, 'a wrong key';
    unlike error_of($bare->(Authorization => 'Bearer sk_test_verysecretkey'))->{message}, qr/verysecret/, 'is not repeated whole';
    is $bare->(Authorization => $bearer)->status, 200, 'a bearer';
    is $bare->(Authorization => 'Basic ' . encode_base64($stripe->key . ':', ''))->status, 200, 'basic, the key as user';
    like $bare->(Authorization => $bearer)->header('Request-Id'), qr/^req_\w{14}$/, 'an answer has a request id';
    like $bare->()->header('Request-Id'), qr/^req_/, 'a refusal too';
    is error_of($bare->())->{type}, 'invalid_request_error', 'and a type';
};

subtest 'versions' => sub {
    my $as = sub ($version) { $stripe->api(GET => '/v1/customers', {}, 'Stripe-Version' => $version) };
    is $as->($_)->status, 200, $_ for qw(2026-02-25.clover 2025-03-31.basil 2024-12-18.acacia 2022-11-15 2026-10-28.endive);
    for my $wrong (qw(2025-12-18.acacia 2026-02-25 2026-02-25.acacia latest 2025-12-15.Clover)) {
        my $answer = $as->($wrong);
        is $answer->status, 400, "$wrong does not exist";
        is error_of($answer)->{type}, 'invalid_request_error', 'its type';
    }
    is $as->('2022-11-15')->header('Stripe-Version'), '2022-11-15', 'the answer names the version';
    my $customer = $stripe->api(@customer)->json->{id};
    my $id = $stripe->subscribe($customer, price => 'price_pro_monthly')->{id};
    my $get = sub ($version) { $stripe->api(GET => "/v1/subscriptions/$id", {}, 'Stripe-Version' => $version)->json };
    ok !exists $get->('2026-02-25.clover')->{current_period_end}, 'clover: a subscription has no period';
    ok $get->('2026-02-25.clover')->{items}{data}[0]{current_period_end}, 'its item has';
    ok $get->('2025-02-24.acacia')->{current_period_end}, 'acacia: a subscription has a period';
    ok !exists $get->('2025-02-24.acacia')->{items}{data}[0]{current_period_end}, 'its item has none';
};

subtest 'forms' => sub {
    my $post = sub ($body, $type = $form) { request($stripe->address, @customer, body => $body, headers => {Authorization => $bearer,
        'Content-Type' => $type}) };
    my $json = $post->('{"email":"a@example.com"}', 'application/json');
    is $json->status, 400, 'a JSON body is refused';
    like error_of($json)->{message}, qr{check that your POST content type is application/x-www-form-urlencoded}, 'and told why';
    is $post->('email=a%40example.com&name=J%C3%BCrgen+%E2%82%AC&metadata[a]=1&metadata%5Bb%5D=2')->status, 200, 'a form';
    my ($customer) = grep { ($_->{name} // '') =~ /rgen/ } $stripe->all('customer');
    is $customer->{name}, "J\x{fc}rgen \x{20ac}", 'in UTF-8';
    is_deeply $customer->{metadata}, {a => '1', b => '2'}, 'with brackets bare or encoded';
    is $post->('name=%C3')->status, 400, 'half a character is refused';
    is $post->('name=%zz')->status, 400, 'and half an escape';
    is $post->('metadata[a]=1&metadata=2')->status, 400, 'and a value that is a hash too';
    is $post->('', 'application/json')->status, 200, 'an empty body has no type';
    is_deeply [map { $_->{params} } grep { $_->{status} == 200 } $stripe->calls(method => 'POST',
        path => '/v1/customers')]->[1]{metadata}, {a => '1', b => '2'},
        'the log shows what was sent';
};

subtest 'pages of lists' => sub {
    my @ids = reverse map { $stripe->api(@customer, {email => 'list@example.com'})->json->{id} } 1 .. 5;
    my $list = sub (%params) { $stripe->api(GET => '/v1/customers', {email => 'list@example.com', %params})->json };
    my $ids = sub ($page) { [map { $_->{id} } $page->{data}->@*] };
    my $first = $list->(limit => 2);
    is_deeply $ids->($first), [@ids[0, 1]], 'newest first';
    ok $first->{has_more}, 'there are more';
    is $first->{url}, '/v1/customers', 'the list names its address';
    is_deeply $ids->($list->(limit => 2, starting_after => $ids[1])), [@ids[2, 3]], 'the next page';
    my $last = $list->(limit => 2, starting_after => $ids[3]);
    is_deeply $ids->($last), [$ids[4]], 'the last page';
    ok !$last->{has_more}, 'there are no more';
    is_deeply $ids->($list->(limit => 2, ending_before => $ids[4])), [@ids[2, 3]], 'backwards';
    is_deeply $ids->($list->(starting_after => $ids[4])), [], 'after the last';
    is scalar $list->('created[gte]' => $stripe->now + 100)->{data}->@*, 0, 'by date';
    is scalar $list->('created[gte]' => $stripe->now - 100)->{data}->@*, 5, 'by date, all';
};

subtest 'expansion' => sub {
    my $customer = $stripe->api(@customer, {name => 'Exp'})->json->{id};
    my $id = $stripe->subscribe($customer, price => 'price_pro_monthly')->{id};
    my $one = $stripe->api(GET => "/v1/subscriptions/$id", {expand => ['customer', 'latest_invoice.payments']})->json;
    is $one->{customer}{name}, 'Exp', 'an id becomes its object';
    is $one->{latest_invoice}{payments}{data}[0]{status}, 'paid', 'and parts of it';
    my $list = $stripe->api(GET => '/v1/subscriptions', {customer => $customer, expand => ['data.customer']})->json;
    is $list->{data}[0]{customer}{name}, 'Exp', 'in lists';
};

subtest 'idempotency' => sub {
    my @key = ('Idempotency-Key' => 'customer:7:1');
    my $first = $stripe->api(@customer, {name => 'Once'}, @key);
    my $again = $stripe->api(@customer, {name => 'Once'}, @key);
    is $again->json->{id}, $first->json->{id}, 'the same key gives the same object';
    is $again->body, $first->body, 'in the same bytes';
    is $first->header('Idempotent-Replayed'), undef, 'the first is no replay';
    is $again->header('Idempotent-Replayed'), 'true', 'the second is';
    isnt $again->header('Request-Id'), $first->header('Request-Id'), 'and a request of its own';
    is scalar(grep { ($_->{name} // '') eq 'Once' } $stripe->all('customer')), 1, 'one was made';
    for my $other ([@customer, {name => 'Twice'}], [POST => '/v1/checkout/sessions', {}]) {
        my $answer = $stripe->api(@$other, @key);
        is $answer->status, 400, "the same key for something else: $other->[1]";
        is error_of($answer)->{type}, 'idempotency_error', 'is an idempotency error';
    }
    is $stripe->api(@customer, {}, 'Idempotency-Key' => 'k' x 256)->status, 400, 'a key has at most 255 characters';
    is $stripe->api(@customer, {email => 'wrong'}, 'Idempotency-Key' => 'fix')->status, 400, 'what was refused';
    is $stripe->api(@customer, {email => 'right@example.com'}, 'Idempotency-Key' => 'fix')->status, 200, 'is not kept for its key';
    $stripe->advance(86401);
    isnt $stripe->api(@customer, {name => 'Once'}, @key)->json->{id}, $first->json->{id}, 'a day later the key is forgotten';
};

subtest 'a key in use' => sub {
    $stripe->fault(path => '/v1/customers', method => 'POST', delay => 0.5);
    my @both = requests(2, map { {address => $stripe->address, method => 'POST', path => '/v1/customers', body => 'name=Par',
        headers => {Authorization => $bearer, 'Content-Type' => $form, 'Idempotency-Key' => 'parallel'}} } 1 .. 2);
    is_deeply [sort map { $_->status } @both], [200, 409], 'one is served, one told to wait';
    my ($refused) = grep { $_->status == 409 } @both;
    is error_of($refused)->{code}, 'idempotency_key_in_use', 'by its code';
    is scalar(grep { ($_->{name} // '') eq 'Par' } $stripe->all('customer')), 1, 'one was made';
};

subtest 'faults: statuses' => sub {
    $stripe->fault(status => 500, count => 2);
    is $stripe->api(@customer)->status, 500, 'once';
    my $error = $stripe->api(@customer);
    is $error->status, 500, 'twice';
    is error_of($error)->{type}, 'api_error', 'an api_error';
    is $stripe->api(@customer)->status, 200, 'and no more';
    $stripe->fault(status => 429, should_retry => 0, retry_after => 7);
    my $limited = $stripe->api(@customer);
    is_deeply [map { $limited->header($_) } qw(Stripe-Should-Retry Retry-After)], ['false', 7], 'with what it says of retrying';
    is error_of($limited)->{code}, 'rate_limit', 'a rate limit';
    $stripe->fault(status => 409, should_retry => 1);
    is $stripe->api(@customer)->header('Stripe-Should-Retry'), 'true', 'or the other way';
    $stripe->fault(status => 503, path => '/v1/prices');
    is $stripe->api(@customer)->status, 200, 'for one path only';
    is $stripe->api(GET => '/v1/prices')->status, 503, 'this one';
    $stripe->fault(status => 500, method => 'GET', path => '/subscriptions/');
    is $stripe->api(GET => '/v1/subscriptions')->status, 500, 'by an expression';
    $stripe->fault(status => 403, message => 'The provided key does not have the required permissions');
    is $stripe->api(@customer)->status, 403, 'a restricted key';
    my @key = ('Idempotency-Key' => 'after');
    $stripe->fault(status => 500, after => 1, saved => 1);
    is $stripe->api(@customer, {name => 'Both'}, @key)->status, 500, 'carried out, and the 500 kept';
    is $stripe->api(@customer, {name => 'Both'}, @key)->status, 500, 'so that it comes again';
    is scalar(grep { ($_->{name} // '') eq 'Both' } $stripe->all('customer')), 1, 'though the object is there';
    @key = ('Idempotency-Key' => 'saved');
    $stripe->fault(status => 500, saved => 1);
    is $stripe->api(@customer, {name => 'Saved'}, @key)->status, 500, 'a 500 that is kept for the key';
    my $replayed = $stripe->api(@customer, {name => 'Saved'}, @key);
    is_deeply [$replayed->status, $replayed->header('Idempotent-Replayed')], [500, 'true'], 'comes again';
    @key = ('Idempotency-Key' => 'unsaved');
    $stripe->fault(status => 500);
    is $stripe->api(@customer, {name => 'Unsaved'}, @key)->status, 500, 'one that is not';
    is $stripe->api(@customer, {name => 'Unsaved'}, @key)->status, 200, 'does not';
    $stripe->fault(garbage => '<html>');
    is $stripe->api(@customer)->body, '<html>', 'an answer that is no JSON';
};

subtest 'faults: connections' => sub {
    my $named = sub ($name) { scalar grep { ($_->{name} // '') eq $name } $stripe->all('customer') };
    $stripe->fault(drop => 1);
    is $stripe->api(@customer, {name => 'Lost'})->status, 0, 'the connection is closed';
    is $named->('Lost'), 0, 'before the call is carried out';
    $stripe->fault(drop => 1, after => 1);
    my @key = ('Idempotency-Key' => 'dropped');
    is $stripe->api(@customer, {name => 'Done'}, @key)->status, 0, 'the connection is closed';
    is $named->('Done'), 1, 'after the call is carried out';
    is $stripe->api(@customer, {name => 'Done'}, @key)->header('Idempotent-Replayed'), 'true', 'the same again is a replay';
    is $named->('Done'), 1, 'there is still one';
    $stripe->fault(status => 500, after => 1);
    is $stripe->api(@customer, {name => 'Made'})->status, 500, 'an error';
    is $named->('Made'), 1, 'though it was carried out';

    $stripe->fault(delay => 0.1);
    my $leaving = IO::Socket::INET->new(PeerAddr => $stripe->address) or die $!;
    print $leaving "POST /v1/customers HTTP/1.1\r\nHost: x\r\nAuthorization: $bearer\r\nContent-Type: $form\r\n",
        "Content-Length: 9\r\n\r\nname=Left";
    wait_for(sub { ($stripe->calls)[-1]{fault} }, 5, 'the call arrives');
    close $leaving;
    wait_for(sub { $named->('Left') }, 5, 'a call is carried out though its caller has left');
    my $begun = time;
    $stripe->fault(delay => 0.3);
    is $stripe->api(@customer)->status, 200, 'a late answer';
    cmp_ok time - $begun, '>=', 0.3, 'is late';
    $stripe->fault(hang => 1);
    my $socket = IO::Socket::INET->new(PeerAddr => $stripe->address) or die $!;
    print $socket "GET /v1/customers HTTP/1.1\r\nHost: x\r\nAuthorization: $bearer\r\n\r\n";
    wait_for(sub { ($stripe->calls)[-1]{fault}{hang} }, 5, 'the call arrives');
    my $bits = '';
    vec($bits, fileno $socket, 1) = 1;
    is select($bits, undef, undef, 0.2), 0, 'no answer at all';
    is $stripe->api(@customer)->status, 200, 'others are served meanwhile';

    $stripe->close_port;
    ok !IO::Socket::INET->new(PeerAddr => $stripe->address), 'connections are refused';
    $stripe->open_port;
    is $stripe->api(@customer)->status, 200, 'and accepted again';
    $stripe->pause;
    my $waiting = IO::Socket::INET->new(PeerAddr => $stripe->address) or die $!;
    print $waiting "GET /v1/customers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: $bearer\r\n\r\n";
    $bits = '';
    vec($bits, fileno $waiting, 1) = 1;
    is select(my $none = $bits, undef, undef, 0.2), 0, 'stopped, it accepts and does not answer';
    $stripe->resume;
    like scalar(<$waiting>), qr{^HTTP/1.1 200}, 'and goes on';
};

subtest 'the log' => sub {
    $stripe->clear_calls;
    $stripe->api(@customer, {metadata => {a => 1}}, 'Idempotency-Key' => 'log', 'User-Agent' => 'test');
    $stripe->api(GET => '/v1/customers', {limit => 3});
    my ($post) = $stripe->calls(method => 'POST');
    is_deeply $post->{params}, {metadata => {a => '1'}}, 'parameters';
    is_deeply $post->{headers}, {'content-type' => $form, 'idempotency-key' => 'log', 'stripe-version' => '2026-02-25.clover',
        'user-agent' => 'test'}, 'headers';
    is $post->{authorization}, 'Bearer', 'never the key';
    is_deeply [map { $_->{path} } $stripe->calls], ['/v1/customers', '/v1/customers'], 'in order';
    is scalar $stripe->calls(path => '/v1/customers', method => 'GET'), 1, 'by path and method';
};

is $stripe->log_text, '', 'the stand-in had nothing to complain about';
done_testing;
