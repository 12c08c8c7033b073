# What a run of the model does, by its seed alone: the world's catalog and locations, what each client asks, and what happens meanwhile:
# changes by the operator and by customers, and faults. Owner: Billing::Model.
package Billing::ModelPlan;
use v5.36;
use Exporter qw(import);
use JSON::PP ();
our @EXPORT_OK = qw(%costs %plans %quotas @accounts catalog locations requests_of operations_of);

our @accounts = qw(ann ben cid dot);
our %quotas = (requests => 'month', burst => 'minute', slide => 'sliding');
our %plans = (free => {requests => 300, burst => 30, slide => 60, logo => 40, mockup => 20},
    pro => {requests => 3000, burst => 60, slide => 90, logo => 60, mockup => 30});
our %costs = (
    one => {requests => 1}, five => {requests => 5}, all => {requests => 2, burst => 1, slide => 1}, slide => {slide => 1}, logo => {logo => 2},
    mix => {requests => 1, slide => 1, logo => 1, mockup => 1});

sub catalog() {
    my $plan = sub ($key, %more) {
        my %of = $plans{$key}->%*;
        return {%more, quotas => {map { $_ => $of{$_} } keys %quotas}, credits => {map { $_ => $of{$_} } qw(logo mockup)}};
    };
    return {
        default_plan => 'free', credits => {logo => {}, mockup => {}},
        quotas => {requests => {period => 'month'}, burst => {period => 'minute'}, slide => {period => 'sliding', length => '1m'}},
        plans => {free => $plan->('free', rank => 0, free => JSON::PP::true()),
            pro => $plan->('pro', rank => 1, price => {month => {id => 'price_pro', amount => 900, currency => 'usd'}})},
        packs => {logo_10 => {name => '10 logos', price => {id => 'price_logo_10', amount => 1000, currency => 'usd'}, credit => 'logo', quantity => 10}},
    };
}

sub locations() {
    my $rules = sub ($cost) {
        return join ' ', map { $quotas{$_} ? "billing_quota $_ cost=$cost->{$_};" : "billing_credits $_ $cost->{$_} hold=60s;" } sort keys %$cost;
    };
    return join "\n", 'billing on; billing_account $user;', (map { "location /$_/ { @{[$rules->($costs{$_})]} proxy_pass http://app; }" } sort keys %costs),
        'location = /open { billing off; return 204; }', 'location = /metrics { billing off; billing_metrics; }',
        'location = /billing/checkout { billing_checkout; }', 'location = /billing/webhook { billing off; billing_webhook; }';
}

# perl's own generator, one for each purpose, so that leaving out an operation changes no request.
sub dice($seed, $purpose) {
    srand(($seed * 1_000_003 + $purpose * 7919) % 2**31);
    return;
}
sub one_of(@all) { return $all[rand @all] }

# The attempts of one client: {host, account, location, path, gone}.
sub requests_of($seed, $client, $count) {
    dice($seed, 1 + $client);
    my %path = (ok => 'x', slow => 'slow/0.03', missing => 'status/404', broken => 'status/500', abort => 'abort', gone => 'slow/0.4');
    return map {
        my $how = one_of(('ok') x 5, ('slow') x 10, qw(missing broken abort gone));
        {host => int rand 2, account => one_of(@accounts), location => one_of(sort keys %costs), path => $path{$how}, gone => $how eq 'gone' ? 1 : 0}
    } 1 .. $count;
}

sub change($account, $quota, $type) {
    return one_of([plan => $account, one_of(sort keys %plans)], [limit => $account, $quota, 20 + int rand 700], [unlimit => $account, $quota],
        [grant => $account, $type, 1 + int rand 20], [adjust => $account, $type, int(rand 20) - 10],
        [job => $account, $type, 1 + int rand 6, one_of(qw(commit refund leave))], [buy => $account])->@*;
}

sub fault($host, $worker) {
    return one_of(([kill_worker => $host, $worker]) x 3, ([kill_host => $host]) x 2, ([stop_worker => $host, $worker]) x 2, ([reload => $host]) x 2, [zone => $host],
        ['kill_redis'], ['flush_redis'], ['stop_redis'], (['kill_postgres']) x 2, ['stop_postgres'], (['cut_postgres']) x 2, ([lose_answers => $host]) x 4)->@*;
}

# [number of attempts after which, what, more]: in order.
sub operations_of($seed, $attempts) {
    dice($seed, 0);
    my @changes = map { [int rand $attempts * 0.9, change(one_of(@accounts), one_of(sort keys %quotas), one_of(qw(logo mockup)))] } 1 .. 12;
    my @faults = map { [int $attempts * (0.1 + rand 0.75), fault(int rand 2, int rand 2)] } 1 .. 5;
    return sort { $a->[0] <=> $b->[0] } @changes, @faults;
}

1;
