# What a journey asks of all hosts of a world at once.
package Billing::Journey;
use v5.36;
use Billing::Process qw(wait_for patience);
use Exporter 'import';
use Test::More ();
use Time::HiRes qw(time);

our @EXPORT_OK = qw(problem answer_of everywhere within_a_second everything);

my %demo = (Authorization => 'Bearer demo-token');

# The members of a problem document.
sub problem($response) { eval { $response->json } // {} }

# "200", or status and code of a refusal: "402 LIMIT_REQUESTS".
sub answer_of($response) {
    return join ' ', $response->status, $response->status < 400 ? () : problem($response)->{code} // 'without a code';
}

# What each host answers to this request, by its name. %headers: those of demo, if none are given.
sub answers($world, $method, $path, %headers) {
    %headers = %demo if !%headers;
    return map { $_->{name} => answer_of($_->request($method, $path, headers => \%headers)) } $world->hosts;
}

# Fails unless every host answers so, now.
sub everywhere($world, $what, $wanted, $method, $path, %headers) {
    my %seen = answers($world, $method, $path, %headers);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    Test::More::is_deeply(\%seen, {map { $_ => $wanted } keys %seen}, $what);
    return;
}

# Asks until every host answers so; fails when that takes longer than a second (E3).
sub within_a_second($world, $what, $wanted, $method, $path, %headers) {
    my $began = time;
    my %seen;
    my $done = eval {
        wait_for(sub {
            %seen = answers($world, $method, $path, %headers);
            return !grep { $_ ne $wanted } values %seen;
        }, 5, $what);
    };
    my $took = time - $began;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    Test::More::ok($done && $took < 1 * patience(), sprintf '%s: %s everywhere within a second (took %.3f s)', $what, $wanted, $took)
        or Test::More::diag(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
    return;
}

# Everything that there is but tickets and the hosts' own rows.
sub everything($world) {
    return ($world->sql(q{SELECT (SELECT jsonb_agg(to_jsonb(l) ORDER BY l.id) FROM billing.audit_log l) AS audit,
        (SELECT count(*) FROM billing.outbox) AS outbox, (SELECT jsonb_agg(to_jsonb(l) ORDER BY l.id) FROM billing.credit_ledger l) AS ledger,
        (SELECT jsonb_agg(b ORDER BY b) FROM billing.credit_balances b) AS balances,
        (SELECT jsonb_agg(to_jsonb(e) ORDER BY e.event_id) FROM billing.webhook_events e) AS events,
        (SELECT jsonb_agg(to_jsonb(a) - 'fetch_seq' - 'applied_seq' ORDER BY a.id) FROM billing.accounts a) AS accounts,
        (SELECT jsonb_agg(to_jsonb(s) ORDER BY s) FROM billing.subscriptions s) AS subscriptions}))[0];
}

1;
