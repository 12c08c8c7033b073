# A bearer token names an account only when the configured key made it, for us, and it is in force; how it is verified is never its
# own say, and verifying it waits for nobody. G2, A4, A5, with real nginx on two hosts: keys are rolled in a file and at an address
# without a reload, with the address away, and over reloads.
use v5.36;
use Billing::Nginx ();
use Billing::Process qw(new_directory slurp);
use Billing::Test;
use Billing::Token;
use MIME::Base64 qw(encode_base64url);

my $secret = 'a-secret-of-at-least-thirty-two-bytes';
my $directory = new_directory();
my $hs = Billing::Token->new('HS256', secret => $secret);
my ($old, $new, $stranger) = map { Billing::Token->new('RS256', kid => $_) } qw(old new old);
my $ec = Billing::Token->new('ES256', kid => 'curve');
my $weak = Billing::Token->new('RS256', kid => 'weak', bits => 1024);
my $secret_is_the_public_key = Billing::Token->new('HS256', secret => $old->public_pem, kid => 'old');

# Renamed into place, as a careful operator does it.
sub put_file($name, $text) {
    Billing::Nginx::write_file("$directory/$name.new", $text);
    chmod 0644, "$directory/$name.new";
    rename "$directory/$name.new", "$directory/$name" or die "$name: $!\n";
    return;
}
Billing::Nginx::write_file("$directory/secret", "$secret\n");
put_file('keys.json', Billing::Token::jwks($old, $weak, {kty => 'oct', k => encode_base64url($secret), kid => 'secret'}));
put_file('ec.json', Billing::Token::jwks($ec));
mkdir "$directory/served";
put_file('served/jwks.json', Billing::Token::jwks($old));
Billing::Token::run('openssl', qw(req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test
    -addext subjectAltName=IP:127.0.0.1), -keyout => "$directory/tls.key", -out => "$directory/tls.pem");

# The server of keys, with a certificate of its own making.
my $server = Billing::Nginx->new(name => 'server of keys', workers => 1, conf => <<"END");
%%GLOBALS%%
events { }
http {
    %%HTTP_GLOBALS%%
    server {
        listen 127.0.0.1:%%PORT%% ssl;
        ssl_certificate $directory/tls.pem; ssl_certificate_key $directory/tls.key;
        access_log %%PREFIX%%/asked.log;
        root $directory/served;
    }
}
END
my $asked = sub { my $lines = () = slurp($server->directory . '/asked.log') =~ /GET/g; $lines };

my $address = 'https://' . $server->address . '/jwks.json';
my $world = world(hosts => 2, http => "large_client_header_buffers 4 2m;\n    map \$billing_jwt_claim_sub \$guest { '' guest; default \$billing_jwt_claim_sub; }", locations => <<"END");
    billing on;
    billing_account \$billing_jwt_claim_sub;
    location /api/  { billing_jwt alg=RS256 jwks=$directory/keys.json issuer=https://issuer.example audience=api; proxy_pass http://app; }
    location /lax/  { billing_jwt alg=RS256 jwks=file:$directory/keys.json; proxy_pass http://app; }
    location /ec/   { billing_jwt alg=ES256 jwks=$directory/ec.json leeway=0; proxy_pass http://app; }
    location /hs/   { billing_jwt alg=HS256 secret=file:$directory/secret; proxy_pass http://app; }
    location /url/  { billing_jwt alg=RS256 jwks=$address ca=$directory/tls.pem; proxy_pass http://app; }
    location /away/ { billing_jwt alg=RS256 jwks=https://127.0.0.1:1/jwks.json; proxy_pass http://app; }
    location /cookie/ { billing_jwt alg=HS256 secret=$secret token=\$cookie_session; proxy_pass http://app; }
    location /org/  {
        billing_jwt alg=HS256 secret=$secret;
        billing_account "org:\$billing_jwt_claim_orgId";
        add_header X-Seen "\$billing_jwt_claim_roles|\$billing_jwt_claim_n|\$billing_jwt_claim_none" always;
        proxy_pass http://app;
    }
    location /guest/ {
        billing_jwt alg=HS256 secret=$secret;
        billing_account \$guest;
        proxy_pass http://app;
    }
    location /none/ { billing off; proxy_pass http://app; }
END
my @hosts = $world->hosts;
my $host = $hosts[0];
my $soon = sub { time + 300 };
my %us = (iss => 'https://issuer.example', aud => 'api');

sub ask($path, $token, $on = $host) { $on->get($path, Authorization => "Bearer $token") }

# Every worker of every host has so many keys since then, in all the $sources that name the file.
sub have($file, $count, $sources, %mark) {
    return !grep { my @lines = $_->log_lines(qr{\Q$file\E: keys in force: $count$}, $mark{$_->{name}}); @lines < 2 * $sources } @hosts;
}
sub all_have(@words) { wait_for(sub { have(@words) }, 15, "every worker has the keys: @words[0, 1]") }
sub marks() { map { $_->{name} => $_->mark } @hosts }

sub passes($path, $token, $what) {
    for my $on (@hosts) {
        my $answer = ask($path, $token, $on);
        is $answer->status, 200, "$what: $on->{name}" or diag $answer->body;
    }
    return;
}

sub refused($path, $token, $what) {
    my $answer = ask($path, $token);
    is $answer->status, 401, "$what: refused";
    is eval { $answer->json->{code} }, 'INVALID_TOKEN', "$what: as such";
    is $answer->header('WWW-Authenticate'), 'Bearer error="invalid_token"', "$what: the client is told";
    return;
}

subtest 'who is who' => sub {
    my $answer = $host->get('/api/x');
    is $answer->status, 401, 'G2: no token, no account';
    is $answer->json->{code}, 'ACCOUNT_REQUIRED', 'told apart from a bad one';
    is $answer->header('WWW-Authenticate'), 'Bearer', 'and how to come by one';
    is $host->get('/api/x', Authorization => 'Basic eDp5')->json->{code}, 'ACCOUNT_REQUIRED', 'other schemes are no tokens';

    passes('/api/x', $old->token({sub => 'rsa-user', exp => $soon->(), %us}), 'G2: RS256');
    passes('/ec/x', $_, 'G2: ES256') for map { $ec->token({sub => "curve-$_", exp => $soon->()}) } 1 .. 3;
    passes('/hs/x', $hs->token({sub => 'mac-user', exp => $soon->()}), 'G2: HS256');
    passes('/hs/x', $hs->token({sub => 'mac-user', exp => $soon->()}, header => {kid => 'anything'}), 'a secret has no name');
    passes('/api/x', $old->token({sub => 'rsa-user', exp => $soon->(), %us, aud => ['web', 'api'], nbf => time - 10},
        header => {typ => 'at+jwt'}), 'RFC 9068: an access token for several');
    passes('/lax/x', $old->token({sub => 'rsa-user', exp => $soon->() + 0.5}, header => {typ => undef, x5t => 'abc'}), 'what it need not have');
    is_deeply [map { $_->{external_id} } $world->sql('SELECT external_id FROM billing.accounts ORDER BY 1')],
        [qw(curve-1 curve-2 curve-3 mac-user rsa-user)], 'G1: the accounts are those of the tokens';

    my $token = $hs->token({sub => 'mac-user', exp => $soon->()});
    is $host->get('/cookie/x', Cookie => "session=$token")->status, 200, 'G2: a token from elsewhere';
    is $host->get('/cookie/x', Authorization => "Bearer $token")->json->{code}, 'ACCOUNT_REQUIRED', 'and only from there';
    is $host->get('/cookie/x', Cookie => 'session=nonsense')->json->{code}, 'INVALID_TOKEN', 'bad there too';
    is $host->get('/hs/x', Authorization => "bearer   $token")->status, 200, 'the scheme in any case';
    is $host->get('/hs/x', Authorization => 'Bearer')->json->{code}, 'INVALID_TOKEN', 'an empty token is a bad one';
};

subtest 'claims' => sub {
    my $answer = ask('/org/x', $hs->token({orgId => 'acme', n => 7, roles => ['a', 'b'], exp => $soon->()}));
    is $answer->status, 200, 'a claim in camel case';
    is $answer->header('X-Seen'), '["a","b"]|7|', 'lists and numbers are JSON, what is absent is empty';
    is ask('/org/x', $hs->token({orgId => "a\r\nb", exp => $soon->()}))->status, 400, 'A7: an id that is none';
    is ask('/hs/x', $hs->token({sub => $_, exp => $soon->()}))->status, 400, 'A7: a subject that is no id'
        for 'a b', 'x' x 129, "a\x{1F600}", '../x';
    refused('/hs/x', $hs->token({sub => "a\0b", exp => $soon->()}), 'A7: a zero byte');
    is ask('/hs/x', $hs->token({exp => $soon->()}))->json->{code}, 'ACCOUNT_REQUIRED', 'a good token that names nobody';
    is ask('/hs/x', $hs->token({sub => 'a', SUB => 'b', exp => $soon->()}))->status, 200, 'the exact name wins';
    is ask('/org/x', $hs->token({orgID => 'a', orgId => 'b', exp => $soon->()}))->status, 200, 'two names of which none is meant: the text stays';
    my ($empty) = $world->sql(q{SELECT external_id FROM billing.accounts WHERE external_id = 'org:'});
    ok $empty, 'as if there were no claim';
};

subtest 'A4: how it is verified is not its own say' => sub {
    my $claims = {sub => 'rsa-user', exp => $soon->(), %us};
    my $none = Billing::Token::part({alg => 'none'}) . '.' . Billing::Token::part($claims) . '.';
    refused('/api/x', $none, 'alg none');
    refused('/hs/x', $none, 'alg none where a secret is expected');
    refused('/api/x', $secret_is_the_public_key->token($claims), 'HS256 with the public key as secret');
    refused('/api/x', Billing::Token->new('HS256', secret => $secret)->token($claims, header => {kid => 'secret'}), 'HS256 with a secret of the set');
    refused('/hs/x', $old->token({sub => 'x', exp => $soon->()}), 'RS256 where HS256 is configured');
    refused('/ec/x', $ec->token({sub => 'x', exp => $soon->()}, header => {alg => 'RS256'}), 'another algorithm named');
    refused('/api/x', $old->token($claims, header => {alg => $_ }), 'alg ' . ($_ // 'missing'))
        for 'NoNe', 'rs256', 'RS256 ', 'RS512', '', undef, ['RS256'], {a => 1};
    refused('/api/x', $old->token($claims, header => qq({"alg":"none","alg":"RS256","kid":"old"})), 'alg twice');
    refused('/api/x', $old->token($claims, header => {kid => $_}), "kid $_")
        for "' OR 1=1 --", '../../../etc/passwd', 'https://' . $server->address . '/evil', '', 'x' x 300, 'weak', 'secret', "old\0";
    refused('/api/x', $old->token($claims, header => {kid => 7}), 'kid a number');
    refused('/api/x', $old->token($claims, header => $_), 'header with ' . (keys %$_)[0])
        for {crit => ['exp']}, {crit => []}, {b64 => JSON::PP::false}, {jku => $address}, {x5u => $address}, {jwk => $stranger->jwk},
        {typ => 'logout+jwt'}, {typ => 7};
    refused('/api/x', $stranger->token($claims), 'another key of the same name');
    refused('/api/x', $weak->token($claims), 'a key of 1024 bits');
    is $world->app->count('/api/evil'), 0, 'nobody was asked';
};

subtest 'A5: what it says, and how it is cut' => sub {
    my $good = {sub => 'rsa-user', exp => $soon->(), %us};
    my $text = sub ($json) { $old->token($json) };
    my $with = sub (%claims) { my %all = (%$good, %claims); $old->token({map { $_ => $all{$_} } grep { defined $all{$_} } keys %all}) };
    refused('/api/x', $with->(exp => time - 61), 'expired');
    passes('/api/x', $with->(exp => time - 30), 'within the leeway');
    refused('/ec/x', $ec->token({sub => 'x', exp => time - 1}), 'expired without a leeway');
    refused('/api/x', $with->(nbf => time + 90), 'not yet in force');
    passes('/api/x', $with->(nbf => time + 30), 'nearly in force');
    refused('/api/x', $with->(iss => $_), 'issuer ' . ($_ // 'missing')) for 'https://issuer.example/', 'HTTPS://issuer.example', '', undef, ['https://issuer.example'];
    refused('/api/x', $with->(aud => $_), 'another audience') for 'web', 'api2', ['web', 'apis'], [], ['API'], [['api']], {api => 1}, undef;
    refused('/api/x', $with->(exp => undef), 'no exp');
    refused('/api/x', $with->(exp => '' . $soon->()), 'exp a text');
    my $rest = q("sub":"rsa-user","iss":"https://issuer.example","aud":"api");
    refused('/api/x', $text->("{$rest,\"exp\":$_}"), "exp $_") for '1' . '0' x 400, '1e400', '1e300', '-1', '-1e10', 'null', 'true', '[9999999999]', '9007199254740993';
    refused('/api/x', $text->("{$rest,\"exp\":1,\"exp\":9999999999}"), 'exp twice');
    refused('/api/x', $text->("{$rest,\"exp\":9999999999,\"nbf\":\"0\"}"), 'nbf a text');
    refused('/api/x', $text->($_), 'payload ' . substr $_, 0, 20) for '', '[]', '"x"', '{', '[' x 5000, "{$rest,\"exp\":9999999999}x", "\xff\xfe";

    my $token = $with->();
    passes('/api/x', $token, 'the whole');
    my ($header, $payload, $signature) = split /\./, $token;
    my $forged = Billing::Token::part({%$good, sub => 'victim'});
    my %broken = (
        'without its signature' => "$header.$payload.", 'without a dot' => "$header.$payload", 'with a fourth part' => "$token.x", 'dots' => '..', 'nothing but a word' => 'token',
        'with half a signature' => substr($token, 0, -100), 'with a byte less' => substr($token, 0, -2), 'with other claims' => "$header.$forged.$signature",
        'padded' => "$token=", 'in plain base64' => "$header.$payload." . ($signature =~ tr{_-}{/+}r) . '+', 'with blanks' => "$header. $payload.$signature",
        'with a signature of zeros' => "$header.$payload." . encode_base64url("\0" x 256), 'a longer signature' => "$token" . 'AAAA',
        'encoded loosely' => substr($token, 0, -1) . ($signature =~ /[AQgw]$/ ? 'B' : 'A'),
    );
    refused('/api/x', $broken{$_}, "a token $_") for sort keys %broken;
    my $curve = $ec->token({sub => 'x', exp => $soon->()});
    my $signed = $curve =~ s/\.[^.]*$//r;
    refused('/ec/x', "$signed." . encode_base64url($_), 'ES256: a signature that is none') for "\0" x 64, "\xff" x 64, "\0" x 63, "\0" x 65, "\x30\x06\x02\x01\x01\x02\x01\x01";
    refused('/api/x', ('A' x 1_000_000), 'a megabyte');
    refused('/api/x', $text->(qq({$rest,"exp":9999999999,"x":") . 'y' x 20_000 . '"}'), 'more than sixteen kilobytes');
    is $_->workers, 2, "$_->{name} lives" for @hosts;
    ok !$host->log_lines(qr/\Q$payload\E|\Q$secret\E/), 'no token and no secret is in the log';
};

subtest 'a bad token refuses whatever else names an account' => sub {
    is $host->get('/guest/x')->status, 200, 'a guest is let in';
    refused('/guest/x', 'nonsense', 'not with a bad token');
    is ask('/guest/x', $hs->token({sub => 'mac-user', exp => $soon->()}))->status, 200, 'a good one is looked at';
};

subtest 'a key is rolled in a file, without a reload' => sub {
    my @pids = map { $_->workers } @hosts;
    my ($with_old, $with_new) = map { $_->token({sub => 'rsa-user', exp => $soon->()}) } $old, $new;
    passes('/lax/x', $with_old, 'the old key') for 1 .. 2;
    refused('/lax/x', $with_new, 'the new one, before');
    my %mark = marks();
    put_file('keys.json', Billing::Token::jwks($old, $new));
    all_have('keys.json', 2, 2, %mark);
    passes('/lax/x', $with_new, 'G2: the new key') for 1 .. 4;
    passes('/lax/x', $with_old, 'G2: both at once, the old') for 1 .. 4;
    refused('/lax/x', $old->token({sub => 'rsa-user', exp => $soon->()}, header => {kid => undef}), 'no kid among several keys');
    %mark = marks();
    put_file('keys.json', Billing::Token::jwks($new));
    all_have('keys.json', 1, 2, %mark);
    refused('/lax/x', $with_old, 'G2: a token that was good, once its key is gone') for 1 .. 4;
    passes('/lax/x', $with_new, 'the new key stays') for 1 .. 4;
    passes('/lax/x', $new->token({sub => 'rsa-user', exp => $soon->()}, header => {kid => undef}), 'no kid, and one key');

    put_file('keys.json', '{"keys": [');
    $host->wait_log(qr{keys\.json is not JSON: .*; the keys it had stay in force}, 5);
    passes('/lax/x', $with_new, 'a broken file changes nothing');
    unlink "$directory/keys.json";
    $host->wait_log(qr{keys\.json cannot be read: .*; the keys it had stay in force}, 5);
    passes('/lax/x', $with_new, 'nor does one that is gone');
    %mark = marks();
    put_file('keys.json', Billing::Token::jwks($old));
    all_have('keys.json', 1, 2, %mark);
    passes('/lax/x', $with_old, 'what comes is read') for 1 .. 4;
    is_deeply [map { $_->workers } @hosts], \@pids, 'by the same workers';
};

subtest 'keys from an address' => sub {
    my ($with_old, $with_new) = map { $_->token({sub => 'rsa-user', exp => $soon->()}) } $old, $new;
    all_have('jwks.json', 1, 1, map { $_->{name} => 0 } @hosts);
    passes('/url/x', $with_old, 'G2: fetched keys') for 1 .. 4;
    cmp_ok $asked->(), '<=', 8, 'G2: about once each (' . $asked->() . ')';

    my $answer = ask('/away/x', $with_old);
    is $answer->status, 503, 'G2: no key has ever been read: nobody can tell';
    is $answer->json->{code}, 'BILLING_UNAVAILABLE', 'told as such';
    is $answer->header('Retry-After'), 1, 'waiting helps';
    refused('/away/x', 'nonsense', 'what is no token needs no key');
    is $host->get('/away/x')->json->{code}, 'ACCOUNT_REQUIRED', 'nor does nobody';

    my $before = $asked->();
    my %mark = marks();
    put_file('served/jwks.json', Billing::Token::jwks($old, $new));
    my @answers = map { ask('/url/x', $with_new, $hosts[$_ % 2]) } 1 .. 200;
    is grep({ $_->status == 401 || $_->status == 200 } @answers), 200, 'an unknown kid is refused, and waits for nobody';
    my $knock = sub { $_->get_many(16, 16, '/url/x', Authorization => "Bearer $with_new") for @hosts };    # a worker that nobody tells of the new key sees no need
    wait_for(sub { $knock->(); have('jwks.json', 2, 1, %mark) }, 15, 'every worker has fetched the new key');
    passes('/url/x', $_, 'G2: both keys') for $with_old, $with_new;
    cmp_ok $asked->() - $before, '<=', 8, 'G2: a flood of unknown kids is a fetch each few seconds (' . ($asked->() - $before) . ')';

    $server->quit;
    ask('/url/x', $with_new =~ s/^[^.]+/Billing::Token::part({alg => 'RS256', kid => 'unheard'})/er);
    passes('/url/x', $_, 'G2: the address is away, the keys stay') for $with_old, $with_new;
    $host->reload;
    is ask('/url/x', $with_new)->status, 200, 'over a reload too' for 1 .. 6;
    put_file('served/jwks.json', 'no JWKS');
    $server->start;
    ask('/url/x', $old->token({sub => 'rsa-user', exp => $soon->()}, header => {kid => "unheard-$_"})) for 1 .. 8;
    $host->wait_log(qr{jwks\.json is not JSON: .*; the keys it had stay in force}, 15);
    passes('/url/x', $_, 'nonsense does not replace them') for $with_old, $with_new;
};

subtest 'a stranger in the place of the server' => sub {
    my $other = Billing::Nginx->new(name => 'host without its certificate', conf => $host->{conf}, vars => {$host->{vars}->%*, LOCATIONS => <<"END"});
    location /url/  { billing on; billing_account \$billing_jwt_claim_sub; billing_jwt alg=RS256 jwks=$address; proxy_pass http://app; }
END
    $other->wait_log(qr{jwks\.json cannot be fetched: .*; until it can, tokens are answered with 503}, 10);
    is $other->get('/url/x', Authorization => 'Bearer ' . $old->token({sub => 'x', exp => $soon->()}))->status, 503, 'is not believed';
};

done_testing;
