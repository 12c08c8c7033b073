# What a host that hears no news would refuse, it asks PostgreSQL first; where nobody answers, what was known decides and is told as stale.
# And where PostgreSQL's clock is in another period than the host's, its word counts. V3, U4, G10, G21, G23.
use v5.36;
use Billing::Clock;
use Billing::Journey qw(answer_of);
use Billing::Test;

my $locations = <<'END_OF_LOCATIONS';
    billing on;
    billing_account $user;
    billing_on_error stale=1h 503;
    add_header X-Source $billing_source always;
    location /white/ { billing_feature white_label; proxy_pass http://app; }
    location /visits/ { billing_quota visits; proxy_pass http://app; }
END_OF_LOCATIONS
my $catalog = Billing::Test->sample_catalog;
$catalog->{quotas}{visits} = {period => 'day'};
$_->{quotas}{visits} = 20 for values $catalog->{plans}->%*;
sub as($account) { (Authorization => "Bearer test:$account") }

subtest 'without news' => sub {
    my $world = world(catalog => $catalog, locations => $locations);
    my $host = $world->host;
    is answer_of($host->get('/white/x', as($_))), '403 FEATURE_NOT_IN_PLAN', "$_ is refused" for qw(pays owes);
    $world->redis->pause;
    $world->sql(q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'agency') WHERE external_id = 'pays'});
    $world->sql(q{INSERT INTO billing.account_features (account_id, feature_no, enabled, expires_at) SELECT a.id, f.feature_no, true, now() + interval '12 s'
        FROM billing.accounts a, billing.features f WHERE a.external_id = 'pays' AND f.feature_key = 'svg_export'});
    my $passed = eval { wait_for(sub { my $answer = $host->get('/white/x', as('pays')); $answer->status == 200 && $answer }, 15, 'it passes') };
    ok $passed, 'V3: who pays is let in, as PostgreSQL says, long before what is known is too old to decide';
    is $passed && $passed->header('X-Source'), 'postgres', 'G23: which is told';
    $world->db->pause;
    my $told = eval { wait_for(sub { my $answer = $host->get('/white/x', as('owes')); $answer->header('X-Source') eq 'stale' && $answer }, 15, 'stale') };
    ok $told, 'G23: with nobody to ask, what was known is told as stale';
    is $told && answer_of($told), '403 FEATURE_NOT_IN_PLAN', 'G21: and decides';
    my $may = eval { wait_for(sub { my $answer = $host->get('/white/x', as('pays')); $answer->header('X-Source') eq 'stale' && $answer }, 20, 'stale') };
    is $may && answer_of($may), '200', 'G21: also for who might, and of whom something has ended since';
    ok scalar($host->log_lines(qr/billing: let through, for its account might when it could last be asked for,/)), 'G21: which is logged';
    $_->resume for $world->redis, $world->db;
};

subtest 'another day in PostgreSQL' => sub {
    my $clock = Billing::Clock->new;
    $clock->advance(86400);
    my $world = world(catalog => $catalog, locations => $locations, hosts => 2, database => {env => $clock->environment});
    my ($ahead) = $world->sql('SELECT extract(epoch FROM now())::bigint - ? AS seconds', time);
    cmp_ok $ahead->{seconds}, '>', 86000, 'it is a day ahead';
    my @statuses = map { $world->host($_ % 2)->get('/visits/x', as('a'))->status } 1 .. 24;
    is_deeply \@statuses, [(200) x 20, (402) x 4], 'U4: twenty in it, no more and no fewer';
    my @rows = $world->sql('SELECT used, issued FROM billing.quota_periods');
    is scalar(@rows), 1, 'one day was paid from';
};
done_testing;
