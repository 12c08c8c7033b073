# Who holds an API key asks as its account, at no cost once it is known; a key that is revoked, by the command or by SQL, is refused on
# every host within a second; keys that nobody made reach no account and put nobody out. G2, S2, O1 (keys), A7, with real nginx on two
# hosts and on one without Redis.
use v5.36;
use Billing::Process qw(slurp);
use Billing::Test;
use Digest::SHA qw(sha256_hex);
use Time::HiRes qw(time);

my $locations = <<'END';
    billing on;
    billing_account $billing_api_key_account;
    billing_api_key $http_x_api_key;
    billing_on_error stale=2h 503;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /plain/ { add_header X-Worker $pid always; add_header X-Account $billing_api_key_account always; proxy_pass http://app; }
    location /open/ { billing_api_key off; proxy_pass http://app; }
    location /bearer/ { billing_api_key $bearer; proxy_pass http://app; }
    location /twice/ { error_page 418 = @inner; try_files /nothing @inner; }
    location @inner { billing_quota requests; proxy_pass http://app; }
    location /early/ { set $early "x$billing_api_key_account"; add_header X-Early $early always; proxy_pass http://app; }
    location = /billing/checkout { billing_checkout; billing_public_url http://127.0.0.1; }
END
my $http = 'map $http_authorization $bearer { "~^Bearer (?<bearer_key>.+)$" $bearer_key; }';

sub create($world, @words) { (split /\n/, $world->must('keys', 'create', @words))[0] }
sub ask($host, $key, $path = '/plain/x') { $host->get($path, 'X-API-Key' => $key) }
sub name_of($key) { substr $key, 0, 13 }

# Every worker of the host was seen to answer so, and none otherwise.
sub all_workers($host, $wanted, $key) {
    my %seen;
    for (1 .. 8) {
        my @answers = $host->get_many(8, 8, '/plain/x', 'X-API-Key' => $key);
        return 0 if grep { $_->status != $wanted } @answers;
        $seen{$_->header('X-Worker')} = 1 for @answers;
        return 1 if keys %seen == $host->workers;
    }
    return 0;
}

sub everywhere($world, $what, $wanted, $key) {
    return eval { wait_for(sub { !grep { !all_workers($_, $wanted, $key) } $world->hosts }, 10, $what); 1 };
}

sub within_a_second($world, $what, $wanted, $key) {
    my $began = time;
    my $done = everywhere($world, $what, $wanted, $key);
    my $took = time - $began;
    ok $done && $took < 1 * Billing::Process::patience(), sprintf '%s: %s everywhere within a second (took %.3f s)', $what, $wanted, $took;
    return;
}

sub walk($name, %option) {
    my $world = world(locations => $locations, http => $http, database => {settings => {track_functions => 'all'}}, %option);
    my @hosts = $world->hosts;
    my $host = $hosts[0];

    subtest "$name: the command" => sub {
        my $refused = $world->command('keys', 'create', 'demo');
        is $refused->{code}, 1, 'O1: no account, no key';
        like $refused->{err}, qr/no account "demo"; add --create-account to make it/, 'says what to do';
        is $world->command('keys', 'create', 'a b', '--create-account')->{code}, 1, 'A7: an id that is none';
        is $world->command('keys', 'create', 'demo', '--create-account', '--expires', '2001-01-01T00:00:00Z')->{code}, 1, 'a key of yesterday';
        is $world->command('keys', 'create', 'demo', '--create-account', '--expires', 'soon')->{code}, 1, 'no time';
        is scalar($world->sql('SELECT 1 FROM billing.api_keys')), 0, 'nothing was made';

        my $made = JSON::PP::decode_json($world->must('keys', 'create', 'demo', '--create-account', '--name', 'ci', '--json'));
        my $key = $made->{key};
        like $key, qr/^bk_[a-z2-7]{10}_[0-9a-f]{64}$/, 'G2: 256 bits';
        is_deeply {%$made{qw(account name prefix state)}}, {account => 'demo', name => 'ci', prefix => name_of($key), state => 'good'}, 'O1: told in JSON';
        my ($row) = $world->sql(q{SELECT encode(sha256, 'hex') AS sha256, row_to_json(k)::text AS all FROM billing.api_keys k});
        is $row->{sha256}, sha256_hex($key), 'G2: its digest is stored';
        unlike $row->{all}, qr/\Q@{[substr $key, 14]}/, 'and not the key';
        my $plain = $world->command('keys', 'create', 'demo');
        like $plain->{out}, qr/^bk_\S+\n$/, 'O1: the key alone on standard output';
        like $plain->{err}, qr/shown once; "ngx-billing keys revoke bk_/, 'and what to know beside it';
        my $list = $world->must('keys', 'list');
        is scalar(split /\n/, $list), 2, 'O1: two are listed';
        like $list, qr/^@{[name_of($key)]}  good     demo  created \S+  ci$/m, 'by name';
        unlike $list, qr/\Q@{[substr $key, 14]}/, 'never again by the key';
        is $world->must('keys', 'list', 'somebody', '--json'), "[]\n", 'of one account only';
        is $world->command('keys', 'revoke', 'bk_aaaaaaaaaa')->{code}, 1, 'O1: a key that is not there';
        is $world->command('keys', 'revoke', 'nonsense')->{code}, 2, 'what is no key';
        is_deeply [map { "$_->{action} $_->{actor}" } $world->sql(q{SELECT action, split_part(actor, ':', 1) AS actor FROM billing.audit_log ORDER BY id})],
            ['key.create command', 'key.create command'], 'S2: audited';
        is $world->sql(q{SELECT 1 FROM billing.audit_log WHERE before::text || after::text LIKE '%sha256%'}), 0, 'without the digest';
    };

    my $key = create($world, 'demo');
    subtest "$name: who is who" => sub {
        for my $on (@hosts) {
            my $answer = ask($on, $key);
            is $answer->status, 200, "G2: $on->{name}" or diag $answer->body;
            is $answer->header('X-Account'), 'demo', 'is the account';
        }
        is $host->get('/plain/x')->json->{code}, 'ACCOUNT_REQUIRED', 'no key, no account';
        is $host->get('/open/x', 'X-API-Key' => $key)->json->{code}, 'ACCOUNT_REQUIRED', 'where keys are off';
        is $host->get('/bearer/x', Authorization => "Bearer $key")->status, 200, 'from another place';
        wait_for(sub { ask($host, $key, '/early/x')->header('X-Early') eq 'xdemo' }, 5, 'the variable has it before the gate, once the worker knows it');
        my $other = create($world, 'other', '--create-account');
        is ask($host, $other)->header('X-Account'), 'other', 'another key, another account';
        my $flipped = $key =~ s/(.)$/$1 eq '0' ? '1' : '0'/er;
        for my $bad ($flipped, uc $key, "$key ", "x$key", substr($key, 0, -1), name_of($key), 'bk_', "' OR 1=1 --", '*', "bk_aaaaaaaaaa_" . 'a' x 64, 'k' x 4000) {
            my $answer = ask($host, $bad);
            is $answer->status, $bad eq "$key " ? 200 : 401, 'A7: ' . substr $bad, 0, 20;
            is $answer->json->{code}, 'INVALID_API_KEY', 'told as such' if $answer->status == 401;
        }
        is $host->request('OPTIONS', '/plain/x', headers => {'X-API-Key' => 'bad'})->status, 200, 'OPTIONS is never refused';
        is $world->app->count('/open/x'), 0, 'nobody else reached the application';
        my $before = $world->account('demo')->{limits}{requests}{used};
        is ask($host, $key, '/twice/x')->status, 200, 'over a redirect within';
        is $host->post('/billing/checkout', '{"plan":"pro"}', 'X-API-Key' => $key, 'Content-Type' => 'application/json')->json->{code}, 'BILLING_NOT_CONFIGURED',
            'our own locations know the key';
        is $host->post('/billing/checkout', '{"plan":"pro"}', 'X-API-Key' => $flipped)->json->{code}, 'INVALID_API_KEY', 'and what is none';
        ok !$_->log_lines(qr/\Q@{[substr $key, 14]}/), "$_->{name}: no key in the log" for @hosts;
    };

    subtest "$name: revoked" => sub {
        my ($by_command, $by_sql, $deleted, $whole) = map { create($world, 'demo') } 1 .. 4;
        for my $one ($key, $by_command, $by_sql, $deleted, $whole) {
            ok everywhere($world, 'known', 200, $one), 'every worker knows it';
        }
        $world->must('keys', 'revoke', name_of($by_command));
        within_a_second($world, 'G2: revoked by the command', 401, $by_command);
        $world->sql('UPDATE billing.api_keys SET revoked_at = now() WHERE prefix = $1', name_of($by_sql));
        within_a_second($world, 'G2: revoked by SQL', 401, $by_sql);
        $world->sql('DELETE FROM billing.api_keys WHERE prefix = $1', name_of($deleted));
        within_a_second($world, 'deleted', 401, $deleted);
        unlike $world->must('keys', 'revoke', $whole), qr/\Q@{[substr $whole, 14]}/, 'O1: by the whole key, which is not repeated';
        within_a_second($world, 'revoked by the whole key', 401, $whole);
        like $world->must('keys', 'revoke', name_of($by_command)), qr/revoked/, 'once more changes nothing';
        within_a_second($world, 'the others stay', 200, $key);
        ok !eval { $world->sql('UPDATE billing.api_keys SET revoked_at = NULL WHERE prefix = $1', name_of($by_sql)); 1 }, 'a revoked key stays so';
        ok !eval { $world->sql('UPDATE billing.api_keys SET account_id = account_id + 1 WHERE prefix = $1', name_of($key)); 1 }, 'no key changes its account';
        is_deeply [map { $_->{action} } $world->sql(q{SELECT action FROM billing.audit_log WHERE action LIKE 'key.%' AND action <> 'key.create' ORDER BY id})],
            [qw(key.revoke key.revoke key.delete key.revoke)], 'S2: all audited, once';
    };

    subtest "$name: expired" => sub {
        my $brief = create($world, 'demo', '--expires', POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime time + 3));
        my $now = ask($host, $brief)->status;
        ok $now == 200 || Billing::Process::sanitized(), 'G2: good before';
        wait_for(sub { !grep { ask($_, $brief)->status != 401 } @hosts }, 10, 'it ends by itself');
        pass 'G2: refused after';
        like $world->must('keys', 'list'), qr/^@{[name_of($brief)]}  expired/m, 'and listed so';
    };

    subtest "$name: the account" => sub {
        $world->must('account', 'set', 'demo', '--plan', 'pro');
        within_a_second($world, 'a change of the account goes on', 200, $key);
        my $gone = create($world, 'gone', '--create-account');
        is ask($_, $gone)->status, 200, 'a key' for @hosts;
        $world->sql(q{UPDATE billing.accounts SET deleted_at = now() WHERE external_id = 'gone'});
        within_a_second($world, 'of an account that is deleted', 401, $gone);
    };

    subtest "$name: a flood of keys that nobody made" => sub {
        my @keys = map { sprintf 'bk_aaaaaaaaaa_%064x', $_ } 1 .. 2000;
        my @answers = Billing::Client::requests(50, map { my $bad = $_; {address => $host->address, method => 'GET', path => '/plain/x', headers => {'X-API-Key' => $bad}},
            ($bad =~ /[05]$/ ? {address => $host->address, method => 'GET', path => '/plain/x', headers => {'X-API-Key' => $key}} : ()) } @keys);
        my %status;
        $status{$_->status}++ for @answers;
        is_deeply \%status, {401 => 2000, 200 => 250}, 'the bad ones are refused, the good one is let through';
        my @again = map { ask($host, $keys[-1])->status } 1 .. 20;
        is_deeply [grep { $_ != 401 } @again], [], 'and again';
        is scalar($world->sql(q{SELECT 1 FROM billing.accounts WHERE external_id NOT IN ('demo', 'other', 'gone')})), 0, 'no account has come into being';
    };

    subtest "$name: a database that is away" => sub {
        my $unused = create($world, 'demo');
        ok everywhere($world, 'known', 200, $key), 'every worker knows the key';
        $world->db->pause;
        is grep({ ask($_, $key)->status == 200 } map { ($_) x 8 } @hosts), 8 * @hosts, 'G2: a known key goes on';
        my $answer = ask($host, $unused);
        is $answer->status, 503, 'one that was never asked for: nobody can tell';
        is $answer->json->{code}, 'BILLING_UNAVAILABLE', 'told as such';
        is ask($host, 'nonsense')->status, 401, 'what is no key is refused';
        $world->db->resume;
        wait_for(sub { ask($host, $unused)->status == 200 }, 10, 'told when it is back');
        pass 'told when it is back';
    };
    return;
}

# Exact counts need the ends of PostgreSQL's sessions, which hand them in then.
sub warm($name, %option) {
    my $world = world(locations => $locations, http => $http, database => {settings => {track_functions => 'all'}}, %option);
    my $key = create($world, 'demo', '--create-account');
    $world->must('account', 'set', 'demo', '--plan', 'pro');
    my $host = $world->host;
    is grep({ $_->status == 200 } $host->get_many(400, 4, '/plain/x', 'X-API-Key' => $key)), 400, "$name: 400 requests pass";
    $_->finish for $world->hosts;
    wait_for(sub { !$world->sql(q{SELECT 1 FROM pg_stat_activity WHERE application_name = 'ngx_billing'}) }, 10, 'sessions end');
    my %calls = map { $_->{funcname} => $_->{calls} } $world->sql('SELECT funcname, calls FROM pg_stat_user_functions');
    cmp_ok $calls{api_keys_find}, '<=', 12, "$name: a warm request asks nobody ($calls{api_keys_find} look-ups by two workers)";
    return;
}

walk('two hosts', hosts => 2);
walk('one host, no Redis', redis => 0);
warm('two hosts', hosts => 2);

done_testing;
