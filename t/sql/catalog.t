# Promise (S8): the catalog file is applied in one step, idempotently; numbers stay; every change moves catalog_version.
use strict;
use warnings;
use Test::More;
use Billing::Database;
use JSON::PP;
use Storable qw(dclone);

my $db = Billing::Database->new->migrate;
my $d = $db->dbi;
my ($true, $unlimited) = (JSON::PP::true, undef);
my $catalog = {
    default_plan => 'free',
    features     => ['basic_wizard', 'export'],
    quotas       => { requests => { period => 'month' }, calls => { period => 'minute' } },
    credits      => { logo => {}, mockup => {} },
    stock        => { projects => {}, seats => {} },
    plans        => {
        free => { name => "Free \"\x{e9}\"", rank => 0, free => $true, features => ['basic_wizard'], quotas => { requests => 20 },
                  credits => { logo => 4 }, stock => { projects => 0, seats => 1 }, attributes => { priority => 10 } },
        pro => { name => 'Pro', rank => 2, price => { month => { id => 'price_m', amount => 7900, currency => 'usd' },
                  year => { amount => 79000, currency => 'usd' } },
                  features => ['export', 'white_label'], quotas => { requests => $unlimited, calls => 5 },
                  stock => { projects => $unlimited } },
        team => { rank => 1 },
    },
    packs => { logo_10 => { price => { id => 'price_p', amount => 1000, currency => 'usd' }, credit => 'logo', quantity => 10 } },
};
sub version  { scalar $d->selectrow_array('SELECT catalog_version FROM billing.meta') }
sub document { decode_json(scalar $d->selectrow_array('SELECT billing.catalog_document()')) }

my $first = $db->apply_catalog($catalog);
ok $first->{changed}, 'the first apply changes';
is $first->{version}, version(), 'and answers the version';
my $doc = document();
is $doc->{stamp}, sprintf('%016x', 1 << 40 | version()), 'the stamp is epoch and catalog_version';
is_deeply $doc->{features}, { basic_wizard => 0, export => 1, white_label => 2 },
    'features: declared ones in their order, then those that only plans name';
is_deeply $doc->{limits}, { calls => { no => 0, period => 'minute' }, requests => { no => 1, period => 'month' } }, 'limits';
is_deeply [map { "$_->{no} $_->{key} $_->{rank}" } @{ $doc->{plans} }], ['1 free 0', '2 team 1', '3 pro 2'],
    'plans are numbered by rank';
is $doc->{plans}[0]{name}, "Free \"\x{e9}\"", 'a name with quotes and accents survives';
ok $doc->{plans}[0]{free} && !$doc->{plans}[2]{free}, 'free is a boolean';
is_deeply $doc->{plans}[2]{limits}, { 0 => 5, 1 => undef }, 'null means unlimited';
is_deeply $doc->{plans}[2]{features}, [1, 2], 'features of a plan by number';
is_deeply $doc->{plans}[1]{limits}, {}, 'absent is absent';
is_deeply $doc->{stock}, { projects => 0, seats => 1 }, 'G11: stock by name';
is_deeply [map { $_->{stock} } @{ $doc->{plans} }], [{ 0 => 0, 1 => 1 }, {}, { 0 => undef }], 'G11: of a plan: none, so many, unlimited';
is $doc->{default_plan}, 1, 'default plan';

# Nothing changes at a second apply, not even on disk.
my $rows = q{SELECT string_agg(x, ' ' ORDER BY x) FROM (
    } . join(' UNION ALL ', map { "SELECT '$_' || xmin::text || ctid::text FROM billing.$_" }
    qw(plans plan_prices features plan_features limits plan_limits credit_types plan_credits packs pack_prices stocks plan_stocks meta)) . ') t(x)';
my $before = $db->psql($rows);
is_deeply $db->apply_catalog($catalog), { changed => JSON::PP::false, version => $first->{version} }, 'a second apply changes nothing';
is $db->psql('SELECT catalog_version FROM billing.meta'), $first->{version}, 'and keeps the version';
(my $now = $db->psql($rows)) =~ s/ ?meta\d+\(\d+,\d+\)//;    # the row lock marks meta's row
$before =~ s/ ?meta\d+\(\d+,\d+\)//;
is $now, $before, 'no row was written';

# An operator's plain SQL counts too, once a statement.
my $v = version();
$d->do('LISTEN billing_dirty');
1 while $d->pg_notifies;
$d->do(q{UPDATE billing.plan_limits SET amount = 30 WHERE amount = 20});
is version(), $v + 1, 'a plain UPDATE moves the version';
$d->do('SELECT 1');
ok $d->pg_notifies, 'and wakes the publisher';
$d->do('UPDATE billing.plans SET rank = rank + 10');
is version(), $v + 2, 'once for a statement of many rows';
$d->do('UPDATE billing.plans SET rank = rank');
$d->do('UPDATE billing.plans SET rank = 1 WHERE false');
$d->do('DELETE FROM billing.plan_limits WHERE false');
is version(), $v + 2, 'an UPDATE that changes nothing does not';
$d->do('UPDATE billing.meta SET default_plan = 3');
is version(), $v + 3, 'nor is the default plan forgotten';
ok !eval { $d->do('UPDATE billing.meta SET catalog_version = 1'); 1 }, 'the version cannot go back';
ok $db->apply_catalog($catalog)->{changed}, 'the file repairs the edits';
is document()->{plans}[0]{limits}{1}, 20, 'as it says';

# Numbers stay; the lowest free one is given again only when nothing refers to it.
$d->do(q{SELECT billing.ensure_accounts('{a}')});
$d->do(q{UPDATE billing.accounts SET plan_no = 3});
my $less = dclone($catalog);
delete $less->{plans}{$_} for qw(pro team);
delete $less->{features};
delete $less->{packs};
delete $less->{stock};
delete $less->{plans}{free}{stock};
ok $db->apply_catalog($less)->{changed}, 'a smaller file';
is $db->psql('SELECT plan_no, plan_key, active FROM billing.plans ORDER BY 1'), "1|free|t\n3|pro|f",
    'a plan that an account holds becomes inactive, one that nobody holds goes';
is $db->psql('SELECT price_id, active FROM billing.plan_prices WHERE price_id IS NOT NULL'), 'price_m|f',
    'the price of a withdrawn plan stays known';
is_deeply [map { $_->{key} } @{ document()->{plans} }], ['free', 'pro'], 'the inactive plan stays listed';
is_deeply document()->{plans}[1]{features}, [1, 2], 'and keeps what it grants';
is $db->psql('SELECT stock_key FROM billing.stocks'), 'projects', 'a stock goes when no plan has it, not even a withdrawn one';
is $db->psql('SELECT active FROM billing.packs'), 'f', 'a withdrawn pack becomes inactive';
$less->{plans}{new} = { rank => -5 };
$db->apply_catalog($less);
is $db->psql(q{SELECT plan_no FROM billing.plans WHERE plan_key = 'new'}), 2, 'a new plan takes the lowest free number';
$db->apply_catalog($catalog);
is $db->psql('SELECT plan_key, plan_no, active FROM billing.plans ORDER BY 1'), "free|1|t\npro|3|t\nteam|4|t",
    'a held plan that comes back finds its number; one that was deleted gets a free one';
is_deeply document()->{features}, { basic_wizard => 0, export => 1, white_label => 2 }, 'so do the features';

# A price id that moves, a price that changes.
my $moved = dclone($catalog);
$moved->{plans}{team}{price}{month} = delete $moved->{plans}{pro}{price}{month};
$moved->{plans}{pro}{price}{month} = { id => 'price_m2', amount => 8900, currency => 'usd' };
$moved->{plans}{pro}{price}{year}{id} = 'price_y';
$db->apply_catalog($moved);
is $db->psql(q{SELECT plan_key, interval, price_id FROM billing.plan_prices JOIN billing.plans p USING (plan_no)
    WHERE plan_prices.active ORDER BY 1, 2}), "pro|month|price_m2\npro|year|price_y\nteam|month|price_m", 'prices follow the file';
ok !$db->apply_catalog($moved)->{changed}, 'and stand still at a second apply';

# Nonsense is refused whole.
my $good = version();
my %wrong = (
    'default_plan that is none' => [qr/default_plan must be one of the plans/, sub { $_[0]{default_plan} = 'x' }],
    'no default_plan'           => [qr/default_plan must be/, sub { delete $_[0]{default_plan} }],
    'no plans'                  => [qr/at least one plan/, sub { delete $_[0]{plans} }],
    'a plan that is a text'     => [qr/plans.bad must be an object/, sub { $_[0]{plans}{bad} = 'x' }],
    'an undeclared quota'       => [qr/plans.team.quotas.nope is not declared/, sub { $_[0]{plans}{team}{quotas}{nope} = 1 }],
    'an undeclared credit'      => [qr/plans.team.credits.nope is not declared/, sub { $_[0]{plans}{team}{credits}{nope} = 1 }],
    'an undeclared stock'       => [qr/plans.team.stock.nope is not declared/, sub { $_[0]{plans}{team}{stock}{nope} = 1 }],
    'half a thing'              => [qr/plans.free.stock.seats must be a whole number/, sub { $_[0]{plans}{free}{stock}{seats} = 1.5 }],
    'a pack of no credit'       => [qr/packs.logo_10.credit is not declared/, sub { $_[0]{packs}{logo_10}{credit} = 'nope' }],
    'a negative quota'          => [qr/violates check/, sub { $_[0]{plans}{free}{quotas}{requests} = -1 }],
    'half a request'            => [qr/must be a whole number/, sub { $_[0]{plans}{free}{quotas}{requests} = 1.5 }],
    'a number as text'          => [qr/plans.free.quotas.requests must be a whole number/,
                                    sub { $_[0]{plans}{free}{quotas}{requests} = "20" . '' }],
    'an unknown period'         => [qr/violates check/, sub { $_[0]{quotas}{requests}{period} = 'week' }],
    'a product as price'        => [qr/violates check/, sub { $_[0]{plans}{pro}{price}{month}{id} = 'prod_1' }],
    'a name with a quote'       => [qr/violates check/, sub { $_[0]{plans}{'a"b'} = {} }],
    'too many features'         => [qr/too many features: at most 128/, sub { $_[0]{features} = [map { "f$_" } 1 .. 130] }],
);
for my $name (sort keys %wrong) {
    my ($like, $edit) = @{ $wrong{$name} };
    my $bad = dclone($moved);
    $bad->{plans}{free}{rank} = 7;    # would show if a part were applied
    $edit->($bad);
    ok !eval { $db->apply_catalog($bad); 1 }, "$name is refused";
    like $@, $like, "$name: says why";
}
is version(), $good, 'refused documents left nothing behind';
done_testing;
