# What the gate recorded is there for logs, maps and upstream headers, also behind an internal redirect. G23, G19.
use v5.36;
use Billing::Test;
use Billing::Process qw(slurp);

my $world = world(http => <<'HTTP', locations => <<'END');
    log_format billing '$uri|$billing_account|$billing_plan|$billing_status|$billing_decision|$billing_reason|$billing_limit|$billing_remaining|$billing_cost|$billing_source|$billing_grace|$billing_reset|$billing_time';
    map "$billing_plan:$billing_decision" $mapped { "free:allow" welcome; default other; }
HTTP
    billing on;
    billing_account $user;
    access_log %%PREFIX%%/access.log billing;
    proxy_set_header X-Billing-Plan $billing_plan;
    proxy_set_header X-Billing-Remaining $billing_remaining;
    proxy_set_header X-All "$billing_account $billing_plan $billing_status $billing_decision $billing_reason $billing_remaining $billing_limit $billing_reset $billing_cost $billing_source $billing_time";
    proxy_set_header X-Mapped $mapped;
    location /api/ { billing_quota requests cost=2; proxy_pass http://app; }
    location /inner/ { billing_quota requests; try_files /nowhere @inner; }
    location @inner { billing_quota requests; proxy_pass http://app; }
    location /premium/ { billing_feature white_label; proxy_pass http://app; }
    location /slow/ { proxy_pass http://app; }
    location /open/ { billing off; proxy_pass http://app; }
END
my $host = $world->host;
my @demo = (Authorization => 'Bearer demo-token');

my $seen = $host->get('/api/x', @demo)->json->{headers};
is $seen->{'x-billing-plan'}, 'free', 'the application sees the plan';
is $seen->{'x-billing-remaining'}, 18, 'and what remains';
like $seen->{'x-all'}, qr/^demo free active allow  18 20 \d{10} 2 (?:redis|postgres) \d\.\d{3}$/, 'G23: all of them, in an upstream header';
is $seen->{'x-mapped'}, 'welcome', 'G23: in a map';
ok eval { wait_for(sub { $host->get('/slow/warm', @demo)->json->{headers}{'x-all'} =~ / shm 0\.000$/ }, 5, 'warm') }, 'G23: no time when memory could tell';
is $host->get('/inner/x', @demo)->status, 200, 'behind try_files';
$host->get('/premium/x', @demo);
$world->db->pause;
my $slow = $host->connect;
print $slow "GET /slow/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test:slow\r\nConnection: close\r\n\r\n";
select undef, undef, undef, 0.3;    # what is measured
$world->db->resume;
like scalar <$slow>, qr{^HTTP/1.1 200}, 'an account that had to be asked for';
$host->get('/open/x');
$host->get('/api/x');
$world->must('account', 'set', 'demo', '--status', 'past_due', '--enforced', 'on', '--grace-until', '2999-01-01T00:00:00Z');
my $grace = wait_for(sub { $host->get('/grace', @demo); (slurp($host->directory . '/access.log') =~ /^(.*\|allow_grace\|.*)$/m)[0] }, 5, 'grace');

sub logged($uri) {
    my ($line) = wait_for(sub { (grep { /^\Q$uri\E\|/ } split /\n/, slurp($host->directory . '/access.log'))[0] }, 5, "$uri is logged");
    return [split /\|/, $line, -1];
}
my ($year, $month) = (gmtime)[5, 4];
is_deeply [logged('/api/x')->@[1 .. 8]], ['demo', 'free', 'active', 'allow', '-', 20, 18, 2], 'G23: a metered request';
like logged('/api/x')->[9], qr/^(?:shm|redis|postgres)$/, 'G23: where the facts came from';
like logged('/api/x')->[12], qr/^\d\.\d{3}$/, 'G23: what it took';
cmp_ok logged('/slow/x')->[12], '>=', 0.2, 'G23: waiting for PostgreSQL takes time';
like logged('/api/x')->[11], qr/^\d{10}$/, 'G23: when it starts anew';
is_deeply [logged('/inner/x')->@[1 .. 5]], ['demo', 'free', 'active', 'allow', '-'], 'G23: behind an internal redirect';
is_deeply [logged('/premium/x')->@[1 .. 5]], ['demo', 'free', 'active', 'deny', 'FEATURE_NOT_IN_PLAN'], 'G23: a refusal';
is_deeply [logged('/open/x')->@[1 .. 5]], ['-', '-', '-', '-', '-'], 'G23: nothing where nothing was decided';
like $grace, qr{^/grace\|demo\|free\|past_due\|allow_grace\|.*\|1\|-\|0\.000$}, 'G6: the grace is marked';
done_testing;
