# Promise: what events carried, and the addresses of checkouts that are over, are forgotten in time, in batches; events stay known for ever,
# and what waits or is dead keeps what it needs.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
sub purge { return $w->value('SELECT billing.stripe_purge($1, $2)', $_[0] // '30 days', $_[1] // 100) }
sub kept { return join ' ', map { @$_ } @{ $w->d->selectall_arrayref(q{SELECT event_id FROM billing.webhook_events WHERE payload <> '' ORDER BY 1}) } }
sub replay { return $w->value(q{SELECT billing.events_replay($1, NULL, 'test')}, [$_[0]]) }

for my $status (qw(received processing processed ignored parked dead)) {
    for my $days (29, 31) {
        $w->store("evt_$status$days", payload => '{"email": "a@b.example"}');
        $w->d->do(q{UPDATE billing.webhook_events SET status = $1, received_at = now() - $2::interval,
            processed_at = CASE WHEN $1 = 'processed' THEN now() - $2::interval END WHERE event_id = $3}, undef, $status, "$days days", "evt_$status$days");
    }
}
$w->store('evt_late');
$w->d->do(q{UPDATE billing.webhook_events SET status = 'processed', received_at = now() - interval '1 year', processed_at = now() WHERE event_id = 'evt_late'});
is purge('30 days', 1), 1, 'no more than asked for';
is purge(), 1, 'the rest';
is purge(), 0, 'nothing is left';
is kept(), 'evt_dead29 evt_dead31 evt_ignored29 evt_late evt_parked29 evt_parked31 evt_processed29 evt_processing29 evt_processing31 evt_received29 evt_received31',
    'only what was done more than thirty days ago is forgotten';
is $w->store('evt_processed31'), 'duplicate', 'W2: it is still known';
is $w->value(q{SELECT count(*) FROM billing.stripe_events_unknown(ARRAY['evt_processed31', 'evt_ignored31', 'evt_other'])}), 1, 'W12: also to who looks for missed ones';
like replay('evt_processed31'), qr/"purged": \["evt_processed31"\]/, 'it cannot be replayed';
is $w->value(q{SELECT status FROM billing.webhook_events WHERE event_id = 'evt_processed31'}), 'processed', 'and stays as it is';
like replay('evt_late'), qr/"replayed": \["evt_late"\]/, 'others can';
is $w->value(q{SELECT head ->> 'purged' FROM billing.event_show('evt_ignored31', true)}), 'true', 'which is shown';
ok !eval { purge('23 hours'); 1 }, 'nothing younger than a day is forgotten';

# Checkouts.
my $id = $w->account('a');
my $n = 0;
for my $how (["open", "1 hour"], ["open", "-1 hour"], ["paid", "1 hour"], ["complete", "1 hour"], ["expired", "1 hour"]) {
    $w->d->do(q{INSERT INTO billing.checkout_sessions (session_id, account_id, mode, status, url, expires_at)
        VALUES ($1, $2, 'payment', $3, 'https://x.example', now() + $4::interval)}, undef, 'cs_' . ++$n, $id, @$how);
}
is purge('30 days', 3), 3, 'addresses in batches too';
is purge(), 1, 'the rest';
is_deeply [map { $_->{session_id} } @{ $w->rows('SELECT session_id FROM billing.checkout_sessions WHERE url IS NOT NULL') }], ['cs_1'],
    'only a checkout that can still be paid has its address';
is purge(), 0, 'nothing is left';
done_testing;
