# Promise (S4): an application reads through billing_reader what is for sale and the rows of the one account that it names in its
# transaction; without a name it reads none, it writes nothing, and events, keys and notifications are the module's alone.
use strict;
use warnings;
use FindBin qw($Bin);
use Test::More;
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
for my $name (qw(a b)) {
    $w->account($name);
    $w->event($name, { kind => 'subscription' }, [StripeWorld::sub_of("sub_$name", 'active', 'pro')]);
    $w->d->do(q{SELECT billing.deduct_credits($1, 'logo', 2, 'k')}, undef, $name);
}
$w->d->do('CREATE ROLE app LOGIN IN ROLE billing_reader');
my $app = $w->db->dbi(user => 'app');

sub as {
    my ($name, $sql, @bind) = @_;
    $app->begin_work;
    $app->do(q{SELECT set_config('billing.account_id', $1, true)}, undef, $name) if defined $name;
    my $rows = eval { $app->selectall_arrayref($sql, { Slice => {} }, @bind) };
    my $error = $@;
    $app->rollback;
    return $rows // $error;
}

my %tables = map { $_ => 1 } @{ $w->d->selectcol_arrayref(q{SELECT relname FROM pg_class WHERE relnamespace = 'billing'::regnamespace AND relkind = 'r'}) };
my @catalog = qw(plans plan_prices features plan_features limits plan_limits rates plan_rates credit_types plan_credits packs stocks plan_stocks);
my @tenant = qw(accounts account_features account_limits account_members subscriptions invoices charges refunds disputes credit_balances credit_ledger
    quota_periods account_stocks stock_levels stock_ledger audit_log usage_charges);
for my $table (@catalog) {
    ok ref as(undef, "SELECT * FROM billing.$table"), "$table is open";
    delete $tables{$table};
}
for my $table (@tenant) {
    is_deeply as(undef, "SELECT * FROM billing.$table"), [], "S4: $table: nothing for who names no account";
    is_deeply as('nobody', "SELECT * FROM billing.$table"), [], "S4: $table: nor for one that there is not";
    delete $tables{$table};
}
like as('a', "SELECT * FROM billing.$_"), qr/permission denied/, "S4: $_ is the module's alone" for sort keys %tables;
for my $table (qw(accounts subscriptions credit_balances credit_ledger audit_log)) {
    my $id = $table eq 'accounts' ? 'id' : 'account_id';
    my $all = $w->value("SELECT count(*) FROM billing.$table x JOIN billing.accounts a ON a.id = x.$id WHERE a.external_id = 'a'");
    cmp_ok $all, '>', 0, "$table has rows of the account";
    is as('a', "SELECT count(*) FROM billing.$table")->[0]{count}, $all, "S4: which are those that it reads";
    is as('a', "SELECT count(*) FROM billing.$table x WHERE x.$id = \$1", $w->value(q{SELECT id FROM billing.accounts WHERE external_id = 'b'}))->[0]{count},
        0, 'S4: and none of another, asked for by its number';
    like as('a', "DELETE FROM billing.$table RETURNING 1"), qr/permission denied/, "S4: $table cannot be written";
}
is_deeply as('a', q{SELECT external_id, remaining FROM billing.accounts a JOIN billing.credit_balances b ON b.account_id = a.id WHERE credit_no = 0}),
    [{ external_id => 'a', remaining => 48 }], 'joins work as ever';
is_deeply as(undef, 'SELECT * FROM billing.accounts'), [], 'the name ends with its transaction';
like as('a', q{SELECT billing.grant_credits('a', 'logo', 5, 'k', 'theft')}), qr/permission denied/, 'S4: its functions are not for it';
like as('a', q{SELECT billing.reader_account()}), qr/^ARRAY/, 'but for the one that says whom it reads';
done_testing;
