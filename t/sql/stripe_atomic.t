# Promise (W3): effects, audit, notices and the event's mark are one transaction: whatever dies at whatever moment, all of them
# are there or none, and the event is worked off in the end, once.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my $json = JSON::PP->new->canonical;
my $id = $w->account('a');

# One event with an effect in every table.
my $list = $json->encode([StripeWorld::sub_of('sub_a', 'active', 'pro', start => $T0 + 30 * $DAY), StripeWorld::sub_of('sub_b', 'past_due', 'nobody')]);
my $effect = $json->encode({ kind => 'invoice_paid', invoice => 'in_a', subscription => 'sub_a', billing_reason => 'subscription_cycle',
    price => 'price_pro', period_start => $T0 + 30 * $DAY, amount => 7900, currency => 'usd', attempt => 1 });
my $apply = 'SELECT billing.stripe_apply($1, $2, $3, $4, $5, $6, $7)';
sub everything {
    return join "\n", map { my $t = $_; my $order = $t eq 'webhook_events' ? 'event_id' : '1';
        "$t: " . $w->value("SELECT coalesce(json_agg(x ORDER BY $order)::text, '') FROM billing.$t x") }
        qw(accounts subscriptions invoices credit_balances credit_ledger outbox audit_log snapshot_dirty webhook_events charges refunds
           disputes account_features);
}
# Each of these tables refuses in turn, at its last row: nothing of what came before may stay.
sub refused_everywhere {
    my ($run, @tables) = @_;
    my $before = everything();
    for my $table (@tables) {
        $w->d->do(qq{CREATE OR REPLACE FUNCTION public.refuse_$table() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''crash in $table''; END';
            CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON billing.$table DEFERRABLE INITIALLY IMMEDIATE
            FOR EACH ROW EXECUTE FUNCTION public.refuse_$table()});
        ok !eval { $run->(); 1 }, "the event writes $table";
        like $@, qr/crash in $table/, 'and fails there';
        $w->d->do("DROP TRIGGER refuse ON billing.$table");
        is everything(), $before, 'which leaves nothing behind';
    }
}
$w->store('evt_1', customer => 'cus_a');
my $ticket = $w->ticket('a');
my $attempt = $w->take('evt_1');
my $before = everything();

refused_everywhere(sub { $w->value($apply, '', 'evt_1', $attempt, $id, $ticket, $list, $effect) },
    qw(accounts subscriptions invoices credit_balances credit_ledger outbox audit_log snapshot_dirty webhook_events));
# A connection that dies before its commit.
my $other = $w->db->dbi(detached => 1);
$other->begin_work;
$other->selectrow_array($apply, undef, '', 'evt_1', $attempt, $id, $ticket, $list, $effect);
my $pid = $other->selectrow_array('SELECT pg_backend_pid()');
$w->d->do("SELECT pg_terminate_backend($pid)");
$w->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
$other->{InactiveDestroy} = 1;
undef $other;
is everything(), $before, 'a backend killed before its commit leaves nothing';

# A worker that comes too late.
ok !eval { $w->value($apply, '', 'evt_1', $attempt - 1, $id, $ticket, $list, $effect); 1 }, 'another attempt than the one in force';
is everything(), $before, 'leaves nothing';
ok !eval { $w->value($apply, '', 'evt_unknown', 1, $id, $ticket, $list, $effect); 1 }, 'an event that there is not';
is everything(), $before, 'neither';
ok !eval { $w->value($apply, '', 'evt_1', $attempt, $id, undef, $list, $effect); 1 }, 'a look without a ticket is refused';

# And then it goes through.
$w->d->begin_work;
ok $w->value($apply, '', 'evt_1', $attempt, $id, $ticket, $list, $effect), 'nothing in the way: applied';
$w->d->do(q{UPDATE billing.accounts SET write_enabled = false WHERE id = $1}, undef, $id);
$w->d->commit;
is $w->value('SELECT actor FROM billing.audit_log ORDER BY id DESC LIMIT 1'), 'postgres', 'what the same transaction does next is not its doing';
my %count = map { my $t = $_; ($t => $w->value("SELECT count(*) FROM billing.$t WHERE account_id = \$1", $id)) }
    qw(subscriptions invoices outbox audit_log);
is_deeply \%count, { subscriptions => 2, invoices => 1, outbox => 4, audit_log => 8 },
    'outbox: activated, renewed, two alarms; audit: link, payment, plan, two allocations, two alarms, and our own'
    or diag explain $w->rows('SELECT action, after FROM billing.audit_log ORDER BY id');
is $w->value(q{SELECT string_agg(DISTINCT actor, ' ') FROM billing.audit_log WHERE account_id = $1 AND action <> 'customer.link'
    AND after::text NOT LIKE '%write_enabled%'}, $id),
    'event:evt_1', 'all by this event';
is $w->value(q{SELECT count(*) FROM billing.audit_log WHERE actor <> 'postgres' AND actor <> 'event:evt_1'}), 0, 'nobody else';

# The same for money that goes back and for features.
my $catalog = StripeWorld::catalog();
$catalog->{features} = ['sso'];
$w->db->apply_catalog($catalog);
my $back = $w->account('back');
$w->event('back', StripeWorld::pack_of('back'), undef, id => 'evt_pack');
my %more = (
    evt_refund  => [StripeWorld::charge_of('back', [[1, 500]]), qw(charges refunds credit_ledger credit_balances audit_log webhook_events)],
    evt_dispute => [StripeWorld::dispute_of('back', 'lost', policy => 'maintenance'),
        qw(charges disputes credit_ledger credit_balances accounts outbox audit_log snapshot_dirty webhook_events)],
    evt_feature => [{ kind => 'entitlements', seen => ['sso'] }, qw(accounts account_features snapshot_dirty audit_log webhook_events)],
);
for my $event (reverse sort keys %more) {    # the refund first: it leaves something for the dispute
    my ($what, @tables) = @{ $more{$event} };
    $w->store($event, customer => 'cus_back');
    my $its = $w->ticket('back');
    my $try = $w->take($event);
    my $run = sub { $w->value($apply, '', $event, $try, $back, $its, undef, $json->encode($what)) };
    refused_everywhere($run, @tables);
    ok $run->(), "$event: nothing in the way: applied";
}
like $w->state_of('back'), qr/^free active payment/, 'the dispute holds';
is $w->credits('back'), '4/0/0', 'and the credits are gone';

# The server dies under load: what was acknowledged is there, and is worked off once.
my $v = StripeWorld->new(fsync => 1);
$v->account("k$_") for 1 .. 4;
pipe my $from, my $to;
my $child = fork // die;
if (!$child) {
    close $from;
    $to->autoflush(1);
    my $mine = $v->again;
    my $n = 0;
    eval {
        while (1) {
            $n++;
            my $k = 'k' . (1 + $n % 4);
            $mine->store("evt_$n", customer => "cus_$k", payload => "$n");
            print {$to} "$n\n";    # the 200
            for my $e (@{ $mine->rows(q{SELECT event_id, attempt, customer_id FROM billing.stripe_event_claim(2, '1 min')}) }) {
                $mine->value($apply, '', $e->{event_id}, $e->{attempt}, $mine->value('SELECT id FROM billing.accounts
                    WHERE stripe_customer_id = $1', $e->{customer_id}), undef, undef, $json->encode({ kind => 'invoice_paid',
                    invoice => "in_$e->{event_id}", subscription => 'sub_x', billing_reason => 'manual', amount => 1, currency => 'usd' }));
            }
        }
    };
    POSIX::_exit(0);
}
close $to;
my @acknowledged;
while (my $line = readline $from) {
    chomp $line;
    push @acknowledged, $line;
    $v->db->kill9 if @acknowledged == 80;
}
waitpid $child, 0;
$v->db->start;
$v = $v->again;
ok @acknowledged > 79, scalar(@acknowledged) . ' events were acknowledged when the server was killed';
is $v->value('SELECT count(*) FROM billing.webhook_events WHERE event_id = ANY ($1)', [map { "evt_$_" } @acknowledged]), scalar @acknowledged,
    'all of them are there';
my ($processed) = $v->value(q{SELECT count(*) FROM billing.webhook_events WHERE status = 'processed'});
ok $processed > 30, "$processed were processed";
is $v->value('SELECT count(*) FROM billing.invoices'), $processed, 'with their effect';
is $v->value(q{SELECT count(*) FROM billing.audit_log WHERE action = 'payment.succeeded'}), $processed, 'and their audit row';
$v->d->do(q{UPDATE billing.webhook_events SET next_attempt_at = now() WHERE status = 'processing'});
while (my @events = @{ $v->rows(q{SELECT event_id, attempt, customer_id FROM billing.stripe_event_claim(50, '1 min')}) }) {
    $v->value($apply, '', $_->{event_id}, $_->{attempt}, $v->value('SELECT id FROM billing.accounts WHERE stripe_customer_id = $1',
        $_->{customer_id}), undef, undef, $json->encode({ kind => 'invoice_paid', invoice => "in_$_->{event_id}", subscription => 'sub_x',
        billing_reason => 'manual', amount => 1, currency => 'usd' })) for @events;
}
my $all = $v->value('SELECT count(*) FROM billing.webhook_events');
is $v->value(q{SELECT count(*) FROM billing.webhook_events WHERE status = 'processed'}), $all, 'the rest is worked off afterwards';
is $v->value(q{SELECT count(*) FROM billing.audit_log WHERE action = 'payment.succeeded'}), $all, 'each once';
done_testing;
