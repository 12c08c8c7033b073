# Promise (O2): the lengths of the queues are those of what waits, and telling them costs the same however much is done already.
# Promise (O1): account_explain tells all that PostgreSQL knows of one account, and nothing of another.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
use JSON::PP;
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
sub depths { join ' ', map { $_ // 'null' } @{ $w->d->selectrow_arrayref('SELECT * FROM billing.queue_depths()') } }

$w->d->do('DELETE FROM billing.snapshot_dirty');
is depths(), '0 0 0 0 0 0 0', 'nothing waits';
my $a = $w->account('a');
$w->store("evt_r$_", customer => 'cus_a') for 1 .. 3;
$w->store('evt_p', customer => 'cus_a');
$w->take('evt_p');
$w->store("evt_parked$_", customer => 'cus_x') for 1, 2;
$w->d->do(q{UPDATE billing.webhook_events SET status = 'parked' WHERE event_id LIKE 'evt_parked%'});
$w->store('evt_dead', customer => 'cus_x');
$w->d->do(q{UPDATE billing.webhook_events SET status = 'dead' WHERE event_id = 'evt_dead'});
$w->d->do(q{UPDATE billing.webhook_events SET received_at = now() - interval '90 s' WHERE event_id = 'evt_r1'});
$w->d->do(q{INSERT INTO billing.outbox (topic, dedupe_key, payload, done_at) VALUES ('t', 'k1', '{}', NULL), ('t', 'k2', '{}', now())});
like depths(), qr/^3 1 2 1 9\d 1 1$/, 'each where it belongs: received, processing, parked, dead, the oldest, dirty accounts, outbox';

$w->d->do(q{INSERT INTO billing.webhook_events (event_id, type, payload, status, processed_at)
    SELECT 'done_' || n, 't', '\x7b7d', CASE WHEN n % 2 = 0 THEN 'processed' ELSE 'ignored' END, now() FROM generate_series(1, 20000) n});
$w->d->do(q{INSERT INTO billing.outbox (topic, dedupe_key, payload, done_at) SELECT 't', 'done' || n, '{}', now() FROM generate_series(1, 20000) n});
my $read = sub {
    my $fresh = $w->db->dbi;    # another session: the numbers of this one arrive when it ends
    $fresh->do('SELECT * FROM billing.queue_depths()') if $_[0];
    $fresh->do('SELECT pg_stat_force_next_flush()') if $_[0];
    my $sum = $fresh->selectrow_array(q{SELECT sum(seq_tup_read) FROM pg_stat_all_tables WHERE schemaname = 'billing'
        AND relname IN ('webhook_events', 'outbox')});
    $fresh->disconnect;
    return $sum;
};
my $before = $read->(0);
$read->(1) for 1 .. 3;
is $read->(0), $before, 'what is done is not read';
like depths(), qr/^3 1 2 1 9\d 1 1$/, 'and changes nothing';

$w->db->psql("CREATE ROLE $_->[0] LOGIN" . ($_->[1] ? " IN ROLE $_->[1]" : '')) for ['gate', 'billing_gate'], ['jobs', 'billing_jobs'], ['stranger'];
my %may = (gate => 1, jobs => 1, stranger => 0);
for my $role (sort keys %may) {
    my $d = $w->db->dbi(user => $role);
    is !!eval { $d->do('SELECT * FROM billing.queue_depths()'); 1 }, !!$may{$role}, "$role " . ($may{$role} ? 'may' : 'may not') . ' ask for the queues';
    is !!eval { $d->do(q{SELECT billing.account_explain('a')}); 1 }, !!0, "$role may not have an account explained";
    $d->disconnect;
}

sub explained { my $t = $w->value('SELECT billing.account_explain($1)', $_[0]); $t && decode_json($t) }
is explained('nobody'), undef, 'of nobody there is nothing to tell';

$w->event('a', { kind => 'none' }, [StripeWorld::sub_of('sub_a', 'active', 'pro')], id => 'evt_bought');
$w->account('b');
$w->event('b', { kind => 'none' }, [StripeWorld::sub_of('sub_b', 'active', 'starter')], id => 'evt_of_b');
$w->store('evt_bare');
$w->d->do(q{UPDATE billing.webhook_events SET account_id = $1 WHERE event_id = 'evt_bare'}, undef, $a);
$w->d->do(q{INSERT INTO billing.former_customers (customer_id, account_id) VALUES ('cus_old', $1)}, undef, $a);
$w->store('evt_old', customer => 'cus_old');
$w->d->do(q{INSERT INTO billing.instances (instance_id, host, seen_at) VALUES (gen_random_uuid(), 'web1', now()),
    (gen_random_uuid(), 'gone', now() - interval '2 years')});
my $e = explained('a');
is_deeply $e->{account}, decode_json($w->value(q{SELECT billing.account_show('a')})), 'the account is what show shows';
is decode_json($e->{snapshot})->{stamp}, $e->{account}{stamp}, 'with the snapshot that hosts decide by';
is decode_json($e->{catalog})->{default_plan}, 1, 'and the catalog';
is $e->{customer} . " @{$e->{former_customers}}", 'cus_a cus_old', 'its customer, and a former one';
is_deeply [map { "$_->{id} $_->{status} $_->{plan} $_->{price}" } @{ $e->{subscriptions} }], ['sub_a active pro price_pro'], 'its subscription';
is_deeply [map { $_->{host} } @{ $e->{instances} }], ['web1'], 'hosts that have reported lately';
ok $e->{unpublished_since}, 'nobody publishes here, so its change is not out yet';
is_deeply [sort map { $_->{id} } @{ $e->{events} }], [qw(evt_bare evt_bought evt_old evt_p evt_r1 evt_r2 evt_r3)], 'events of its customers, and those that name it';
$w->store("evt_more$_", customer => 'cus_a') for 1 .. 10;
is scalar @{ explained('a')->{events} }, 8, 'the latest, not all';
done_testing;
