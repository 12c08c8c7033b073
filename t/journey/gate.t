# The first promise: what PostgreSQL says an account has is what every host lets through, exactly and at once, without a reload.
# G1 G3 G4 G5 G6 G7 G8 G9 G10 G19 S5 S9 S10, walked by a caller who did not exist before; on two hosts that share a Redis, and on one
# host without any. No entry lives shorter than an hour here, so whatever changes within a second was pushed.
use v5.36;
use Billing::Journey qw(problem within_a_second);
use Billing::Test;

my @demo = (Authorization => 'Bearer demo-token');
my $locations = <<'END';
    billing on;
    billing_account $user;
    billing_on_error stale=2h 503;
    location /api/ { billing_quota requests; proxy_pass http://app; }
    location /reports/ { billing_feature svg_export; proxy_pass http://app; }
    location /agency/ { billing_plan >=pro; proxy_pass http://app; }
    location /plain/ { proxy_pass http://app; }
    location /open/ { billing off; proxy_pass http://app; }
END

sub walk($name, %option) {
    my $world = world(locations => $locations, %option);
    my @hosts = $world->hosts;

    subtest "$name: nobody and somebody" => sub {
        my $refused = $hosts[0]->get('/api/x');
        is $refused->status, 401, 'G1: no account, no entry';
        is $refused->header('Content-Type'), 'application/problem+json', 'G19: told as a problem document';
        is $hosts[0]->get('/open/x')->status, 200, 'a free path needs nobody';
        is $hosts[0]->get('/api/x', Authorization => 'Bearer test:a b')->status, 400, 'an id with a space is refused';
        is $world->sql('SELECT 1 FROM billing.accounts'), 0, 'nobody has come into being by that';
        is $world->app->count('/api/x'), 0, 'and the application has not been asked';

        my $first = $hosts[0]->get('/api/x', @demo);
        is $first->status, 200, 'S10: an account comes into being on its first request';
        like $first->header('RateLimit-Policy'), qr/^"requests";q=20;w=\d+$/, 'G19: RateLimit-Policy';
        like $first->header('RateLimit'), qr/^"requests";r=19;t=\d+$/, 'G19: RateLimit';
        my @accounts = $world->sql('SELECT a.external_id, p.plan_key, a.status FROM billing.accounts a JOIN billing.plans p USING (plan_no)');
        is_deeply \@accounts, [{external_id => 'demo', plan_key => 'free', status => 'active'}], 'S10: on the default plan';
        is_deeply [map { "$_->{credit_key} $_->{action} $_->{quantity} $_->{balance_after}" } $world->sql(
            'SELECT * FROM billing.credit_ledger JOIN billing.credit_types USING (credit_no) ORDER BY credit_key')],
            ['logo allocate 4 4', 'mockup allocate 4 4'], 'S10: with its one-time allocation, one ledger row for each type';
    };

    subtest "$name: the limit, exactly" => sub {
        my @statuses = map { $hosts[$_ % @hosts]->get('/api/x', @demo)->status } 1 .. 24;
        is_deeply \@statuses, [(200) x 19, (402) x 5], 'G10: twenty requests pass over all hosts, no more and no fewer';
        is $world->app->count('/api/x'), 20, 'and twenty have reached the application';
        my $refused = $hosts[0]->get('/api/x', @demo);
        my $body = problem($refused);
        my ($year, $month) = (gmtime)[5, 4];
        my $reset = sprintf '%04d-%02d-01T00:00:00Z', $month == 11 ? ($year + 1901, 1) : ($year + 1900, $month + 2);
        is_deeply {%$body{qw(status code quota limit used remaining required plan resetAt error title requiredPlan)}}, {
            status => 402, code => 'LIMIT_REQUESTS', quota => 'requests', limit => 20, used => 20, remaining => 0, required => 1,
            plan => 'free', resetAt => $reset, error => 'Limit reached', title => 'Limit reached', requiredPlan => 'starter',
        }, 'G19: the problem says how much, until when, and which plan would do';
        ok $body->{needsUpgrade}, 'G19: needsUpgrade';
        like $body->{type}, qr/#quota-exceeded$/, 'G19: type';
        is $refused->header('Cache-Control'), 'no-store', 'a refusal is not cached';
        cmp_ok $refused->header('Retry-After'), '>', 0, 'G19: waiting helps until the month ends';
        wait_for(sub { ($world->sql('SELECT used FROM billing.quota_periods'))[0]{used} == 20 }, 5, 'usage is reported');
        pass 'every unit is accounted for in PostgreSQL';
    };

    subtest "$name: features and plans follow PostgreSQL" => sub {
        is problem($_->get('/reports/x', @demo))->{code}, 'FEATURE_NOT_IN_PLAN', "G9: $_->{name}" for @hosts;
        is $hosts[0]->get('/reports/x', @demo)->status, 403, 'G9: 403';
        is problem($hosts[0]->get('/agency/x', @demo))->{requiredPlan}, 'pro', 'G8: names the plan that would do';

        $world->sql(q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'starter')
            WHERE external_id = 'demo'});
        within_a_second($world, 'S5: plan by plain SQL, the feature', 200, GET => '/reports/x');
        within_a_second($world, 'G10: and the higher limit', 200, GET => '/api/x');
        is $_->get('/agency/x', @demo)->status, 403, "G8: $_->{name}: starter is not pro" for @hosts;

        $world->must('account', 'set', 'demo', '--plan', 'pro');
        within_a_second($world, 'S5: plan by the command', 200, GET => '/agency/x');

        $world->must('account', 'set', 'demo', '--feature', 'svg_export=off');
        within_a_second($world, 'G9: an override takes away', '403 FEATURE_NOT_IN_PLAN', GET => '/reports/x');
        $world->must('account', 'set', 'demo', '--feature', 'svg_export=default');
        within_a_second($world, 'G9: and gives back', 200, GET => '/reports/x');

        my $catalog = $world->sample_catalog;
        $catalog->{plans}{pro}{features} = [grep { $_ ne 'svg_export' } $catalog->{plans}{pro}{features}->@*];
        $world->apply_catalog($catalog);
        within_a_second($world, 'S8: a catalog without the feature', '403 FEATURE_NOT_IN_PLAN', GET => '/reports/x');
        $world->apply_catalog($world->sample_catalog);
        within_a_second($world, 'S8: the catalog as it was', 200, GET => '/reports/x');
    };

    subtest "$name: switches" => sub {
        $world->must('account', 'set', 'demo', '--writes', 'off');
        within_a_second($world, 'G4: the kill switch refuses writes', '403 WRITE_DISABLED', POST => '/plain/x');
        is $hosts[0]->get('/plain/x', @demo)->status, 200, 'G4: reads pass';
        $world->must('account', 'set', 'demo', '--maintenance', 'operator');
        $world->must('account', 'set', 'demo', '--writes', 'on');
        within_a_second($world, 'G5: maintenance refuses writes', '402 MAINTENANCE', POST => '/plain/x');
        is $hosts[0]->get('/plain/x', @demo)->status, 200, 'G5: reads pass';
        $world->must('account', 'set', 'demo', '--maintenance', 'none');
        within_a_second($world, 'G5: ended', 200, POST => '/plain/x');

        $world->must('account', 'set', 'demo', '--status', 'past_due', '--enforced', 'on', '--grace-until', '2999-01-01T00:00:00Z');
        wait_for(sub { $world->account('demo')->{status} eq 'past_due' }, 5, 'the status is set');
        within_a_second($world, 'G6: before the grace ends', 200, GET => '/plain/x');
        $world->must('account', 'set', 'demo', '--grace-until', '2001-01-01T00:00:00Z');
        within_a_second($world, 'G6: after it', '402 BILLING_ENFORCED', GET => '/plain/x');
        $world->must('account', 'set', 'demo', '--enforced', 'off', '--status', 'canceled');
        within_a_second($world, 'G7: a paid plan needs a live subscription', '402 SUBSCRIPTION_INACTIVE', GET => '/plain/x');
        $world->must('account', 'set', 'demo', '--plan', 'free');
        within_a_second($world, 'G7: the free plan needs none', 200, GET => '/plain/x');
    };

    return;
}

# Exact counts need the ends of PostgreSQL's sessions, which hand them in then: so a world of its own.
sub warm($name, %option) {
    my $world = world(locations => $locations, database => {settings => {track_functions => 'all'}}, %option);
    my $host = $world->host;
    is $host->get('/plain/x', @demo)->status, 200, "$name: the first request brings the account";
    $world->must('account', 'set', 'demo', '--plan', 'pro');
    within_a_second($world, 'pro', 200, GET => '/agency/x');
    my @answers = $host->get_many(320, 4, '/api/warm', @demo);
    is grep({ $_->status == 200 } @answers), 320, "$name: 320 requests pass";
    $_->finish for $world->hosts;
    wait_for(sub { !$world->sql(q{SELECT 1 FROM pg_stat_activity WHERE application_name = 'ngx_billing'}) }, 10, 'sessions end');
    my %calls = map { $_->{funcname} => $_->{calls} } $world->sql('SELECT funcname, calls FROM pg_stat_user_functions');
    cmp_ok $calls{quota_fund}, '<=', 20, "$name: far from the limit at most one funding for each sixteen ($calls{quota_fund})";
    cmp_ok $calls{quota_fund}, '>', 0, "$name: and at least one";
    cmp_ok $calls{snapshots}, '<=', 2, "$name: snapshots are read for the first request alone ($calls{snapshots})";
    return;
}

walk('two hosts', hosts => 2);
walk('one host, no Redis', redis => 0);
warm('two hosts', hosts => 2);
warm('one host, no Redis', redis => 0);

done_testing;
