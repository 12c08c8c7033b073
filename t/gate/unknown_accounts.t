# Who is not known: created once, treated as free, or turned away, as billing_unknown_account says. S10, G1, A38 in small.
use v5.36;
use Billing::Test;

my $world = world(hosts => 2, locations => <<'END');
    billing on;
    billing_account $http_x_account;
    location /default/ { billing_feature basic_wizard; proxy_pass http://app; }
    location /premium/ { billing_feature white_label; proxy_pass http://app; }
    location /metered/ { billing_quota requests; proxy_pass http://app; }
    location /create/ { billing_unknown_account create; proxy_pass http://app; }
    location /deny/ { billing_unknown_account deny; proxy_pass http://app; }
END
my ($one, $two) = $world->hosts;
sub count_accounts($id) { scalar $world->sql('SELECT 1 FROM billing.accounts WHERE external_id = ?', $id) }

is $one->get('/default/x', 'X-Account' => 'h1')->status, 200, 'G1: from a header the default is free: the default plan decides';
is $one->get('/premium/x', 'X-Account' => 'h1')->json->{code}, 'FEATURE_NOT_IN_PLAN', 'what it lacks is refused';
my $metered = $one->get('/metered/x', 'X-Account' => 'h1');
is $metered->status, 403, 'and what must be counted is refused';
is $metered->json->{code}, 'UNKNOWN_ACCOUNT', 'by name';
is count_accounts('h1'), 0, 'free writes nothing';

is $one->get('/deny/x', 'X-Account' => 'h2')->status, 403, 'deny: turned away';
is count_accounts('h2'), 0, 'deny writes nothing';
is $world->app->count('/deny/x'), 0, 'and the application is not asked';

subtest 'create, once for any number at once' => sub {
    my @answers = map { $_->get_many(40, 20, '/create/x', 'X-Account' => 'h3') } $one, $two;
    is grep({ $_->status == 200 } @answers), 80, 'all pass';
    is count_accounts('h3'), 1, 'S10: one account';
    is_deeply [map { $_->{n} } $world->sql(q{SELECT count(*) AS n FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = l.account_id
        WHERE a.external_id = 'h3' GROUP BY credit_no})], [1, 1], 'S10: one allocation of each type';
};

subtest 'who comes into being is let in at once' => sub {
    is $_->get('/deny/x', 'X-Account' => 'h4')->status, 403, 'not yet known' for $one, $two;
    is $one->get('/create/x', 'X-Account' => 'h4')->status, 200, 'created by another way';
    for my $host ($one, $two) {
        wait_for(sub { $host->get('/deny/x', 'X-Account' => 'h4')->status == 200 }, 1, "$host->{name} lets in");
        pass "$host->{name}: within a second, although it remembered the unknown";
    }
};

subtest 'an account that was deleted' => sub {
    $world->sql(q{UPDATE billing.accounts SET deleted_at = now() WHERE external_id = 'h4'});
    for my $host ($one, $two) {
        wait_for(sub { $host->get('/create/x', 'X-Account' => 'h4')->status == 403 }, 2, "$host->{name} turns away");
        pass "$host->{name} turns away";
    }
};

subtest 'ids that are none' => sub {
    is $one->get('/create/x')->status, 401, 'no header';
    is $one->get('/create/x', 'X-Account' => '')->status, 401, 'an empty one';
    is $one->get('/create/x', 'X-Account' => $_)->status, 400, "A7: refused: $_" for 'a b', 'a*', "a'", '{tag}', '../x', 'ü', 'x' x 129, 'a/b', '$x', "a\tb";
    is $one->get('/create/x', 'X-Account' => $_)->status, 200, "A7: allowed: $_" for 'a', 'auth0|61f@x.y:z_-', 'x' x 128;
};

done_testing;
