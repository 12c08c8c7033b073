# Promise (S12): whoever reads plans, credits and their history from tables of his own names finds them in the views that the examples ship, each
# account's rows for that account alone, as S4 has it. AC-20, AC-30, AC-31. (The views of other examples: t/systems.)
use strict;
use warnings;
use FindBin qw($Bin);
use Test::More;
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
for my $name (qw(a b)) {
    $w->account($name);
    $w->event($name, { kind => 'subscription' }, [StripeWorld::sub_of("sub_$name", 'active', 'pro')]);
    $w->d->do(q{SELECT billing.deduct_credits($1, 'logo', 2, 'k', NULL, 'job-1')}, undef, $name);
}
my $file = "$Bin/../../conf/examples/metered-credits/views.sql";
$w->d->do('CREATE SCHEMA app');
for my $time (1, 2) {
    my $code = system 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', $w->db->dsn, '-c', 'SET client_min_messages = warning', '-c', 'SET search_path = app', '-f', $file;
    is $code, 0, "the views are made, time $time";
}
$w->d->do($_) for 'CREATE ROLE views_app LOGIN IN ROLE billing_reader', 'CREATE ROLE views_all LOGIN',
    'GRANT USAGE ON SCHEMA app TO views_app, views_all', 'GRANT SELECT ON app.profiles TO views_all';
my $app = $w->db->dbi(user => 'views_app');
sub rows { $app->selectall_arrayref(@_) }

is_deeply rows("SELECT * FROM app.$_"), [], "S4: $_: nothing for who names no account" for qw(profiles generation_credits credit_transactions);
$app->do(q{SELECT set_config('billing.account_id', 'a', false)});
my $customer = $w->value(q{SELECT stripe_customer_id FROM billing.accounts WHERE external_id = 'a'});
is_deeply rows('SELECT id, subscription_tier, stripe_customer_id FROM app.profiles'), [['a', 'pro', $customer]], 'S12: profiles';
is_deeply rows(q{SELECT user_id, remaining, used, overage FROM app.generation_credits WHERE credit_type = 'logo'}), [['a', 48, 2, 0]], 'S12: generation_credits';
is rows(q{SELECT period_end > period_start FROM app.generation_credits WHERE credit_type = 'logo'})->[0][0], 1, 'with their period';
is_deeply rows(q{SELECT action, quantity, balance_after, job_id FROM app.credit_transactions WHERE credit_type = 'logo' ORDER BY id DESC LIMIT 1}),
    [['deduct', -2, 48, 'job-1']], 'S12, AC-20: credit_transactions';
for my $view (qw(profiles generation_credits credit_transactions)) {
    my $id = $view eq 'profiles' ? 'id' : 'user_id';
    is_deeply rows("SELECT DISTINCT $id FROM app.$view"), [['a']], "AC-30: $view: nobody else's rows";
    is_deeply rows("SELECT 1 FROM app.$view WHERE $id = 'b'"), [], 'AC-30: by name neither';
    ok !eval { $app->do("DELETE FROM app.$view"); 1 }, 'S4: nor is anything written';
}
# A condition of the reader's own sees no row that the view does not show.
$app->do(q{CREATE FUNCTION pg_temp.told(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN
    PERFORM set_config('app.told', concat_ws(' ', nullif(current_setting('app.told', true), ''), t), false); RETURN true; END $$});
rows('SELECT id FROM app.profiles WHERE pg_temp.told(id)');
is rows(q{SELECT current_setting('app.told')})->[0][0], 'a', 'S4: nor by a function in its condition';
ok !eval { rows('SELECT * FROM billing.webhook_events'); 1 }, 'AC-31: Stripe\'s events show nothing';
is_deeply $w->db->dbi(user => 'views_all')->selectcol_arrayref('SELECT id FROM app.profiles ORDER BY 1'), [qw(a b)], 'whom the operator has given the view by himself reads all of it';
done_testing;
