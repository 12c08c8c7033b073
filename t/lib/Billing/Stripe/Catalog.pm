# /v1/products and /v1/prices, for reading: tests make them by the control interface.
package Billing::Stripe::Catalog;
use v5.36;
use Billing::Stripe::Common qw(expandable listing retrieve page created_within);
use Billing::Stripe::Objects ();
use Billing::Stripe::Schema qw(text boolean one_of array);
use Mojo::JSON qw(true false);

sub routes($class) {
    return (
        ['GET', '/v1/products', listing(active => boolean, ids => array(text)), \&list_products],
        ['GET', '/v1/products/:id', expandable(), retrieve('product')],
        ['GET', '/v1/prices', listing(active => boolean, product => text, type => one_of(qw(one_time recurring)),
            lookup_keys => array(text)), \&list_prices],
        ['GET', '/v1/prices/:id', expandable(), retrieve('price', 'price')],
    );
}

sub same($wanted, $is) { !defined $wanted || !!$wanted == !!$is }

sub list_products($account, $params) {
    my %ids = map { $_ => 1 } @{$params->{ids} // []};
    my @all = grep { same($params->{active}, $_->{active}) && (!%ids || $ids{$_->{id}}) } reverse $account->all('product');
    return page($account, '/v1/products', $params, created_within($params, @all));
}

sub list_prices($account, $params) {
    my %keys = map { $_ => 1 } @{$params->{lookup_keys} // []};
    my @all = grep {
        same($params->{active}, $_->{active}) && (!defined $params->{product} || $_->{product} eq $params->{product})
            && (!defined $params->{type} || $_->{type} eq $params->{type}) && (!%keys || $keys{$_->{lookup_key} // ''})
    } reverse $account->all('price');
    return page($account, '/v1/prices', $params, created_within($params, @all));
}

# --- the control interface ---

# name => ..., id => (made up).
sub make_product($account, %option) {
    my $product = Billing::Stripe::Objects::product($account, name => $option{name}, ($option{id} ? (id => $option{id}) : ()));
    $account->add($product);
    $account->emit('product.created', $product);
    return $product;
}

# amount => in the smallest unit; product => id or name of a new one; currency => 'usd', interval => 'month' (none: paid once),
# interval_count => 1, id, active => 1, lookup_key, metered => 0.
sub make_price($account, %option) {
    my $product = $account->find('product', $option{product}) // make_product($account, name => $option{product} // 'Product');
    my $recurring = $option{interval} && {
        interval => $option{interval}, interval_count => 0 + ($option{interval_count} // 1), meter => $option{meter},
        trial_period_days => undef, usage_type => $option{meter} ? 'metered' : 'licensed',
    };
    my $price = Billing::Stripe::Objects::price($account, product => $product->{id}, unit_amount => 0 + $option{amount},
        currency => $option{currency} // 'usd', recurring => $recurring || undef, active => $option{active} // 1 ? true : false,
        lookup_key => $option{lookup_key}, ($option{id} ? (id => $option{id}) : ()));
    $account->add($price);
    $account->emit('price.created', $price);
    return $price;
}

# A product and its prices for every plan and pack of a catalog as conf/catalog.json has it (only names and prices are read).
sub make_catalog($account, $catalog) {
    for my $kind (qw(plans packs)) {
        for my $key (sort keys %{$catalog->{$kind} // {}}) {
            my $thing = $catalog->{$kind}{$key};
            my $prices = $thing->{price} or next;
            my $product = make_product($account, name => $thing->{name} // $key);
            $prices = {'' => $prices} if $prices->{id};
            make_price($account, %{$prices->{$_}}, product => $product->{id}, interval => $_) for sort keys %$prices;
        }
    }
    return;
}

1;
