# /v1/events: what happened in the last 30 days, rendered in the account's own version.
package Billing::Stripe::Events;
use v5.36;
use Billing::Stripe::Common qw(expandable listing page created_within);
use Billing::Stripe::Error qw(refuse exclusive no_such);
use Billing::Stripe::Schema qw(text boolean array);

sub routes($class) {
    return (
        ['GET', '/v1/events', listing(type => text, types => array(text), delivery_success => boolean), \&list],
        ['GET', '/v1/events/:id', expandable(), \&retrieve],
    );
}

sub retrieve($account, $params, $id) {
    my ($event) = grep { $_->{id} eq $id } $account->recent_events;
    return $event // no_such('event', $id, status => 404, param => 'id');
}

sub list($account, $params) {
    exclusive('type', 'types') if defined $params->{type} && $params->{types};
    refuse('You may only specify up to 20 types.', param => 'types') if @{$params->{types} // []} > 20;
    my @types = defined $params->{type} ? $params->{type} : @{$params->{types} // []};
    my @wanted = map { my $type = quotemeta($_) =~ s/\\\*/.*/gr; qr/^$type$/ } @types;
    my @all = grep {
        my $event = $_;
        (!@wanted || grep { $event->{type} =~ $_ } @wanted)
            && (!defined $params->{delivery_success} || !!$params->{delivery_success} == !$account->webhooks->pending($event))
    } reverse $account->recent_events;
    return page($account, '/v1/events', $params, created_within($params, @all));
}

1;
