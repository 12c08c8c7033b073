# /v1/products and /v1/prices. Tests make them by the control interface, too.
package Billing::Stripe::Catalog;
use v5.36;
use Billing::Stripe::Common qw(expandable listing retrieve page created_within metadata merge_metadata);
use Billing::Stripe::Error qw(refuse missing_parameter no_such);
use Billing::Stripe::Objects ();
use Billing::Stripe::Schema qw(text integer boolean one_of object array emptyable);
use Mojo::JSON qw(true false);

my %product = (name => text, active => boolean, metadata => metadata);
my %price = (active => boolean, lookup_key => text, metadata => metadata, nickname => text, transfer_lookup_key => boolean);

sub routes($class) {
    return (
        ['POST', '/v1/products', expandable(%product, id => text, description => text), \&create_product],
        ['POST', '/v1/products/:id', expandable(%product, description => emptyable(text)), \&update_product],
        ['POST', '/v1/prices', expandable(%price, currency => text, product => text, unit_amount => integer,
            recurring => object(interval => one_of(qw(day week month year)), interval_count => integer)), \&create_price],
        ['POST', '/v1/prices/:id', expandable(%price), \&update_price],
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

# --- making them ---

sub create_product($account, $params) {
    missing_parameter('name') if !defined $params->{name};
    my $id = $params->{id};
    refuse("Product already exists.", code => 'resource_already_exists', param => 'id') if defined $id && $account->{objects}{$id};
    my $product = Billing::Stripe::Objects::product($account, name => $params->{name}, (defined $id ? (id => $id) : ()));
    set_product($product, $params);
    $account->add($product);
    $account->emit('product.created', $product);
    return $product;
}

sub update_product($account, $params, $id) {
    my $product = $account->get('product', $id, status => 404, param => 'id');
    return $account->change($product, 'product.updated', sub ($) { set_product($product, $params) });
}

sub set_product($product, $params) {
    $product->{name} = $params->{name} if defined $params->{name};
    $product->{active} = $params->{active} if defined $params->{active};
    $product->{description} = $params->{description} eq '' ? undef : $params->{description} if defined $params->{description};
    $product->{metadata} = merge_metadata($product->{metadata}, $params->{metadata});
    return;
}

sub create_price($account, $params) {
    for my $name (qw(currency product unit_amount)) {
        missing_parameter($name) if !defined $params->{$name};
    }
    no_such('product', $params->{product}, param => 'product') if !$account->find('product', $params->{product});
    refuse("Invalid currency: $params->{currency}.", param => 'currency') if $params->{currency} !~ /^[a-z]{3}$/;
    refuse('Invalid non-negative integer', code => 'parameter_invalid_integer', param => 'unit_amount') if $params->{unit_amount} < 0;
    missing_parameter('recurring[interval]') if $params->{recurring} && !$params->{recurring}{interval};
    free_lookup_key($account, $params);
    my $price = make_price($account, product => $params->{product}, amount => $params->{unit_amount}, currency => $params->{currency},
        silent => 1, ($params->{recurring} ? $params->{recurring}->%* : ()));
    set_price($price, $params);
    $account->emit('price.created', $price);
    return $price;
}

sub update_price($account, $params, $id) {
    my $price = $account->get('price', $id, status => 404, param => 'price');
    free_lookup_key($account, $params, $id);
    return $account->change($price, 'price.updated', sub ($) { set_price($price, $params) });
}

sub set_price($price, $params) {
    for my $name (qw(active lookup_key nickname)) {
        $price->{$name} = $params->{$name} if defined $params->{$name};
    }
    $price->{metadata} = merge_metadata($price->{metadata}, $params->{metadata});
    return;
}

# One price has a lookup key; another may take it over when that is said.
sub free_lookup_key($account, $params, $id = '') {
    my $key = $params->{lookup_key} // return;
    my ($other) = grep { ($_->{lookup_key} // '') eq $key && $_->{id} ne $id } $account->all('price');
    return if !$other;
    refuse("A price (`$other->{id}`) already uses that lookup key.", param => 'lookup_key') if !$params->{transfer_lookup_key};
    $account->change($other, 'price.updated', sub ($) { $other->{lookup_key} = undef });
    return;
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
    $account->emit('price.created', $price) if !$option{silent};
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
