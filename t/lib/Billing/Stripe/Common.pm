# What several resources share: lists by pages, metadata, addresses, URLs, what `expand` may name.
package Billing::Stripe::Common;
use v5.36;
use Billing::Stripe::Error qw(refuse no_such exclusive);
use Billing::Stripe::Objects qw(list_of);
use Billing::Stripe::Schema qw(text integer object array map_of_text emptyable any_of);
use Exporter 'import';
use Mojo::JSON qw(true false);

our @EXPORT_OK = qw(expandable paging listing retrieve page created_within metadata merge_metadata check_metadata address check_url);

# The parameters of a call on one object; of a list; of a list that can be narrowed by date.
sub expandable(%params) { object(%params, expand => array(text)) }
sub paging(%params) { expandable(%params, limit => integer, starting_after => text, ending_before => text) }
sub listing(%params) { paging(%params, created => any_of(integer, object(map { $_ => integer } qw(gt gte lt lte)))) }

# The code of a call that reads one object; $param is how its 404 names the id.
sub retrieve($type, $param = 'id') {
    return sub ($account, $params, $id) { $account->get($type, $id, status => 404, param => $param) };
}

# One page of @all (newest first).
sub page($account, $url, $params, @all) {
    my $limit = $params->{limit} // 10;
    refuse("This value must be greater than or equal to 1 (it currently is '$limit').", param => 'limit') if $limit < 1;
    refuse("This value must be less than or equal to 100 (it currently is '$limit').", param => 'limit') if $limit > 100;
    exclusive('starting_after', 'ending_before') if defined $params->{starting_after} && defined $params->{ending_before};
    my ($first, $last) = (0, $#all);
    if (defined(my $after = $params->{starting_after})) {
        $first = 1 + place($account, 'starting_after', $after, @all);
    } elsif (defined(my $before = $params->{ending_before})) {
        $last = place($account, 'ending_before', $before, @all) - 1;
        $first = $last - $limit + 1 if $last - $limit + 1 > 0;
    }
    my @rest = @all[$first .. $last];
    my $more = defined $params->{ending_before} ? $first > 0 : @rest > $limit;
    my $list = list_of($url, @rest > $limit ? @rest[0 .. $limit - 1] : @rest);
    $list->{has_more} = $more ? true : false;
    return $list;
}

sub place($account, $param, $id, @all) {
    my ($index) = grep { $all[$_]{id} eq $id } 0 .. $#all;
    return $index // do {
        my $known = $account->{objects}{$id};    # it exists, yet left the filtered list: stand where it stood
        no_such('object', $id, param => $param) if !$known || @all && $known->{object} ne $all[0]{object};
        my ($next) = grep { $all[$_]{created} < $known->{created} } 0 .. $#all;
        ($next // @all) - 1;
    };
}

sub created_within($params, @all) {
    my $range = $params->{created} // return @all;
    $range = {gte => $range, lte => $range} if !ref $range;
    return grep {
        my $time = $_->{created};
        !(defined $range->{gt} && $time <= $range->{gt} || defined $range->{gte} && $time < $range->{gte}
            || defined $range->{lt} && $time >= $range->{lt} || defined $range->{lte} && $time > $range->{lte});
    } @all;
}

# --- metadata ---

sub metadata() { emptyable(map_of_text) }

sub check_metadata($metadata, $path = 'metadata') {
    return if !ref $metadata;
    refuse("Metadata can have at most 50 keys.", param => $path) if keys %$metadata > 50;
    for my $key (sort keys %$metadata) {
        refuse("Metadata keys must be at most 40 characters: $key", param => "${path}[$key]") if length $key > 40;
        refuse("Metadata keys may not contain square brackets: $key", param => $path) if $key =~ /[\[\]]/;
        my $length = length $metadata->{$key};
        refuse("Metadata values can have up to 500 characters, but you passed in a value that is $length characters. Invalid value: "
            . substr($metadata->{$key}, 0, 20) . '...', param => "${path}[$key]") if $length > 500;
    }
    return;
}

# What is there, with what is given: an empty value removes its key, an empty metadata removes all.
sub merge_metadata($there, $given, $path = 'metadata') {
    return $there if !defined $given;
    return {} if !ref $given;
    check_metadata($given, $path);
    my %all = (%$there, %$given);
    return {map { $_ => $all{$_} } grep { $all{$_} ne '' } keys %all};
}

# --- others ---

my @address = qw(city country line1 line2 postal_code state);

sub address() { object(map { $_ => emptyable(text) } @address) }

sub check_url($url, $param) {
    return if !defined $url;
    refuse('Not a valid URL', code => 'url_invalid', param => $param) if $url !~ m{^https?://[^\s/?#]+(?:[/?#]\S*)?$};
    refuse("Invalid URL: it is longer than 5000 characters", code => 'url_invalid', param => $param) if length $url > 5000;
    return;
}

1;
